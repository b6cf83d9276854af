// Whether launches failed, behind the C interface of entry.h.
#include "../common/failure.h"
#include "entry.h"

// CUDA's words for the last failed launch, which is then forgotten; null if none failed. Launches
// are not waited for: what goes wrong while they run is told by a later call.
ALLMEM_ENTRY const char* allmem_entry_failure() { return allmem::cuda::take_failure(); }
