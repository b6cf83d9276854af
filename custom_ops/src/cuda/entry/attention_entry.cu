// SlidingWindowAttention behind the C interface of entry.h.
#include "../attention.h"
#include "entry.h"

using namespace allmem::cuda;

ALLMEM_ENTRY const char* allmem_entry_attention_fields() {
  static const std::string names = entry_fields<AttentionArgs>();
  return names.c_str();
}

ALLMEM_ENTRY size_t allmem_entry_attention_scratch(const EntryValue* values) {
  return attention_scratch_bytes(entry_args<AttentionArgs>(values));
}

ALLMEM_ENTRY void allmem_entry_attention(const EntryValue* values, void* scratch, void* stream) {
  AttentionArgs args = entry_args<AttentionArgs>(values);
  args.scratch = scratch;
  attention(args, static_cast<Stream>(stream));
}
