// The kernels behind a C interface, for tests and benchmarks that bring no ONNX Runtime.
//
// An operator has three functions. allmem_entry_NAME_fields() says the names of its arguments, with
// a space between them; the others take the arguments' values in that order. All addresses are
// device memory (the shim's device is the CPU). `scratch` is aligned to 256.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <string>
#include <type_traits>

#include "../../common/per_head.h"

#if defined(_WIN32)
#define ALLMEM_ENTRY extern "C" __declspec(dllexport)
#else
#define ALLMEM_ENTRY extern "C" __attribute__((visibility("default")))
#endif

namespace allmem {
namespace cuda {

// An argument: sizes, flags, choices and element types as integers, other attributes as numbers.
// What heads have of their own is the address (of the host) of integers, their number first.
union EntryValue {
  int64_t integer;
  double number;
  void* address;
};

template <typename Args>
std::string entry_fields() {
  std::string names;
  Args args{};
  args.each([&](const char* name, auto&) { names += (names.empty() ? "" : " ") + std::string(name); });
  return names;
}

template <typename Args>
Args entry_args(const EntryValue* values) {
  Args args{};
  args.each([&](const char*, auto& member) {
    using Member = std::remove_reference_t<decltype(member)>;
    if constexpr (std::is_pointer_v<Member>) {
      member = static_cast<Member>(values->address);
    } else if constexpr (std::is_same_v<Member, PerHead>) {
      const auto* const numbers = static_cast<const int64_t*>(values->address);
      member.set(numbers + 1, numbers[0]);
    } else if constexpr (std::is_floating_point_v<Member>) {
      member = static_cast<Member>(values->number);
    } else {
      member = static_cast<Member>(values->integer);
    }
    ++values;
  });
  return args;
}

}  // namespace cuda
}  // namespace allmem
