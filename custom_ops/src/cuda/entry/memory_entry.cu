// TTTMemory behind the C interface of entry.h.
#include "../memory.h"
#include "entry.h"

using namespace allmem::cuda;

ALLMEM_ENTRY const char* allmem_entry_memory_fields() {
  static const std::string names = entry_fields<MemoryArgs>();
  return names.c_str();
}

ALLMEM_ENTRY size_t allmem_entry_memory_scratch(const EntryValue* values) {
  return memory_scratch_bytes(entry_args<MemoryArgs>(values));
}

ALLMEM_ENTRY void allmem_entry_memory(const EntryValue* values, void* scratch, void* stream) {
  launch_memory(entry_args<MemoryArgs>(values), static_cast<Stream>(stream), scratch);
}
