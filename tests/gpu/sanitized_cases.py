"""A few cases of both operators, run once each: what compute-sanitizer watches.

    compute-sanitizer --tool memcheck python tests/gpu/sanitized_cases.py

Tensors and scratch come from the driver one by one (no cache of PyTorch's), as long as they must be
and no longer, so that the sanitizer sees what lies past them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":  # before PyTorch is there
    os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / part) for part in (".", "custom_ops", "tests/ops", "tests/gpu")]

from cuda_device import BoundOperator, CudaDevice, cuda_device, to_tensor  # noqa: E402
from kernel_checks import cases_in, inputs_in  # noqa: E402

ELEMENTS = ("float32", "float16")

NAMES = frozenset(
    {
        *("ring_at_8_time_9", "ring_at_8_time_1", "piece_longer_than_ring", "long_ring_512"),
        *("tiles_window_65", "head_dim_80_time_6", "head_dim_128_time_6", "half_full_ring_500"),
        *("chunk_at_4_time_2", "tiles_time_97", "dim_64_hidden_128_time_1", "clip_active_time_6"),
        *("dim_64_hidden_128_time_6", "inner_loss_l2_at_15_time_1", "batch_of_three_time_1"),
    }
)


def run(backend: CudaDevice) -> list[str]:
    """Run them; the names of those that ran."""
    ran = []
    for element in ELEMENTS:
        for case in cases_in(element):
            if case.name not in NAMES:
                continue
            tensors = {
                name: to_tensor(array, backend.device)
                for name, array in inputs_in(case, element).items()
            }
            BoundOperator(backend.library, case.operator, tensors, case.attributes).launch()
            backend.wait()
            ran.append(case.name)
    return ran


if __name__ == "__main__":
    print(f"{len(run(cuda_device()))} cases ran")
