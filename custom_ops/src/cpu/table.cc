// The kernels of one target, collected.
#include "kernels.h"

#define ALLMEM_NAME_OF(target) #target
#define ALLMEM_NAME(target) ALLMEM_NAME_OF(target)

namespace allmem {
namespace ALLMEM_TARGET {

size_t attention_scratch(const AttentionArgs& args, int workers);
void attention(const AttentionArgs& args, const Parallel& parallel, void* scratch);
size_t memory_scratch(const MemoryArgs& args, int workers);
void memory(const MemoryArgs& args, const Parallel& parallel, void* scratch);
size_t product_scratch(const ProductArgs& args, int workers);
void product(const ProductArgs& args, const Parallel& parallel, void* scratch);
size_t float_product_scratch(const FloatProductArgs& args, int workers);
void float_product(const FloatProductArgs& args, const Parallel& parallel, void* scratch);
void widen(const void* from, float* to, int64_t count, const Parallel& parallel);
void narrow(const float* from, void* to, int64_t count, const Parallel& parallel);

extern const CpuKernels kKernels;
const CpuKernels kKernels = {
    ALLMEM_NAME(ALLMEM_TARGET), attention_scratch, attention, memory_scratch, memory,
    product_scratch, product, float_product_scratch, float_product, widen, narrow};

}  // namespace ALLMEM_TARGET
}  // namespace allmem
