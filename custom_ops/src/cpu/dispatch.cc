// Chooses the kernels for the CPU at hand; ALLMEM_CPU and ALLMEM_STREAMS force a choice.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace allmem {

namespace generic {
extern const CpuKernels kKernels;
}
#if defined(ALLMEM_X86_TARGETS)
namespace avx2 {
extern const CpuKernels kKernels;
}
namespace avx512 {
extern const CpuKernels kKernels;
}
namespace avx512vnni {
size_t product_scratch(const ProductArgs& args, int workers);
void product(const ProductArgs& args, const Parallel& parallel, void* scratch);
}  // namespace avx512vnni
#endif

namespace {

bool has_avx2() {
#if defined(ALLMEM_X86_TARGETS)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
#else
  return false;
#endif
}

bool has_avx512() {
#if defined(ALLMEM_X86_TARGETS)
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

bool has_vnni() {
#if defined(ALLMEM_X86_TARGETS)
  return has_avx512() && __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

#if defined(ALLMEM_X86_TARGETS)
const CpuKernels* vnni_kernels() {
  static const CpuKernels kernels = [] {
    CpuKernels all = avx512::kKernels;
    all.name = "avx512vnni";
    all.product_scratch = avx512vnni::product_scratch;
    all.product = avx512vnni::product;
    return all;
  }();
  return &kernels;
}
#endif

// AMD's cores since Zen 4.
bool is_amd_with_avx512() {
#if defined(ALLMEM_X86_TARGETS)
  return has_avx512() && __builtin_cpu_is("amd");
#else
  return false;
#endif
}

}  // namespace

// Which of the two is faster was measured; see docs/speed.md.
bool reads_one_stream(const char** problem) {
  const char* const wanted = std::getenv("ALLMEM_STREAMS");
  *problem = nullptr;
  if (wanted == nullptr || *wanted == '\0') return is_amd_with_avx512();
  if (std::strcmp(wanted, "one") == 0) return true;
  if (std::strcmp(wanted, "several") != 0) {
    *problem = "ALLMEM_STREAMS names no way to read weights; allowed: one and several";
  }
  return false;
}

const CpuKernels* cpu_kernels(const char** problem) {
  const char* const wanted = std::getenv("ALLMEM_CPU");
  const bool any = wanted == nullptr || *wanted == '\0';
  *problem = nullptr;
#if defined(ALLMEM_X86_TARGETS)
  if (any ? has_vnni() : std::strcmp(wanted, "avx512vnni") == 0) {
    if (has_vnni()) return vnni_kernels();
    *problem = "ALLMEM_CPU=avx512vnni, but this CPU has no AVX-512 with VNNI; unset it";
    return nullptr;
  }
  if (any ? has_avx512() : std::strcmp(wanted, "avx512") == 0) {
    if (has_avx512()) return &avx512::kKernels;
    *problem = "ALLMEM_CPU=avx512, but this CPU has no AVX-512 (F, BW, DQ, VL); unset it";
    return nullptr;
  }
  if (any ? has_avx2() : std::strcmp(wanted, "avx2") == 0) {
    if (has_avx2()) return &avx2::kKernels;
    *problem = "ALLMEM_CPU=avx2, but this CPU has no AVX2, FMA and F16C; unset it";
    return nullptr;
  }
#endif
  if (any || std::strcmp(wanted, "generic") == 0) return &generic::kKernels;
  *problem =
      "ALLMEM_CPU names no kernels of this build; allowed: generic, and on x86-64 avx2, avx512 and "
      "avx512vnni";
  return nullptr;
}

}  // namespace allmem
