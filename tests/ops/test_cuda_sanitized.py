"""The CUDA kernels under the address and undefined-behavior sanitizers, through the shim."""

from __future__ import annotations

import subprocess
import sys

import pytest
from cuda_memory import CORES
from cuda_shim import ROOT, sanitizer_environment


@pytest.mark.parametrize(
    ("operator", "tests"),
    [
        pytest.param("memory", f"(agree or small_activations) and {cores}", id=f"memory_{cores}")
        for cores in CORES
    ]
    + [
        pytest.param("memory", "", id="memory_all", marks=pytest.mark.long),
        pytest.param("attention", "", id="attention_all", marks=pytest.mark.long),
    ],
)
def test_cases_run_clean_under_the_sanitizers(operator: str, tests: str) -> None:
    # A process of its own, since the sanitizers' runtime must be there before Python is.
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
            *(f"tests/ops/test_cuda_{operator}.py", "-k", tests),
        ],
        cwd=ROOT,
        env=sanitizer_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-6000:]
