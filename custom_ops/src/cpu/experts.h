// Products of a mixture of experts: rows in groups, each group with one expert's matrix.
#pragma once

#include "../common/expert_args.h"
#include "kernels.h"

namespace allmem {

size_t experts_scratch(const ExpertArgs& args, int workers);
void experts(const ExpertArgs& args, const Parallel& parallel, void* scratch);

}  // namespace allmem
