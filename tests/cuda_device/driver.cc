// The driver: what the device is, for whoever asks it directly.
#include <cstdio>

#include "device.h"

#define DRIVER(name) extern "C" int name

DRIVER(cuInit)(unsigned) { return 0; }
DRIVER(cuDeviceGetCount)(int* count) { return *count = 1, 0; }
DRIVER(cuDeviceGet)(int* device, int index) {
  *device = 0;
  return index == 0 ? 0 : device::kInvalidDevice;
}
DRIVER(cuDeviceGetName)(char* name, int length, int) {
  return snprintf(name, static_cast<size_t>(length), "%s", device::kName), 0;
}
DRIVER(cuDeviceGetAttribute)(int* value, int attribute, int) {
  return *value = device::attribute(attribute), 0;
}
DRIVER(cuDeviceTotalMem_v2)(size_t* bytes, int) { return *bytes = device::capacity(), 0; }
DRIVER(cuTensorMapEncodeTiled)() { return 0; }
