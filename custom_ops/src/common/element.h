// Element types of activations and caches, for arguments that say so at run time.
#pragma once

namespace allmem {

// In the order of ELEMENTS in allmem_ops/contract.py.
enum class Element { kFloat32, kFloat16, kBFloat16, kInt8 };  // kInt8: of caches only

}  // namespace allmem
