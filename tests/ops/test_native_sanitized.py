"""The CPU kernels under the address and undefined-behavior sanitizers, without ONNX Runtime.

Builds custom_ops/tests with ALLMEM_SANITIZE=ON and runs every operator case in it, in and out of
place, on each kind of kernels. What a hostile graph may give to an operator is tested with ONNX
Runtime, in tests/hostile/test_operator_nodes.py, with the same build.
"""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from attention_cases import ATTENTION_CASES
from cases import Case, run_reference
from memory_cases import MEMORY_CASES
from sanitized_build import SANITIZED, build

from allmem_ops.kernel_fields import kernel_fields
from allmem_ops.kernel_library import describe
from allmem_ops.products import QUANTIZED_MATMUL
from allmem_ops.reference.product import interleaved, interleaved_scales, quantized_matmul

TOLERANCE = 2e-6
CACHE_TOLERANCE = {"float32": TOLERANCE, "float16": 2e-5, "int8": 1e-3}
"""See test_native_attention; here an int8 that was rounded to the other side counts in full."""


def numbers_of(case: Case) -> dict[str, Any]:
    """Every argument of the kernels that is no array, by name; element types by theirs."""
    shapes = {name: array.shape for name, array in case.inputs().items()}
    call = describe(case.operator, shapes, case.attributes, "float32", case.cache)
    return {
        **call.values,
        "activation": "float32",
        "cache": case.cache,
        "position": case.position,
    }


PRODUCT_TOLERANCE = 1e-5
"""See test_native_product."""

PRODUCT_SIZES = [(32, 16), (64, 1), (96, 17), (576, 48), (160, 129), (33, 40), (1, 5), (320, 700)]
"""Inputs and outputs: whole blocks and tiles, and others; the last is cut into several tasks."""


def write_products(file: BinaryIO) -> int:
    """Write cases of QuantisedMatMul; how many there are."""
    generator, count = np.random.default_rng(5), 0
    forms = itertools.product((False, True), (0, 1), (0, 3))
    for bits, (gated, more, first) in itertools.product((4, 8), forms):
        for inputs, outputs in PRODUCT_SIZES:
            for rows in (0, 1, 2, 5, 8, 15, 141) if not (gated or more or first) else (0, 3, 17):
                row_width = (1 + gated) * inputs
                if (more and row_width < 2) or first >= outputs:
                    continue
                blocks = -(-inputs // 32)
                numbers = generator.integers(0, 1 << bits, (outputs, blocks, 32), np.uint8)
                scale = generator.uniform(1e-3, 1e-2, (outputs, blocks))
                x = generator.standard_normal((rows, row_width)).astype(np.float32)
                x_width = row_width - (row_width + 1) // 3 * more
                arrays = {
                    "x": x[:, :x_width],
                    "numbers": interleaved(numbers, bits),
                    "scales": interleaved_scales(*([scale, -7 * scale] if bits == 4 else [scale])),
                }
                if rows % 2:
                    arrays["bias"] = generator.standard_normal(outputs).astype(np.float32)
                if more:
                    arrays["x_more"] = x[:, x_width:]
                gate = "silu" if gated else "none"
                sizes = {"rows": rows, "inputs": inputs, "x_width": x_width}
                sizes |= kernel_fields(
                    QUANTIZED_MATMUL,
                    {
                        "width": outputs,
                        "bits": bits,
                        "input_gate": gate,
                        "first_width": first or outputs,
                    },
                )
                name = "_".join(map(str, sizes.values()))
                file.write(f"case {name} product {len(sizes)}\n".encode())
                for key, value in sizes.items():
                    file.write(f"{key} {value}\n".encode())
                for key, array in arrays.items():
                    write_array(file, f"array {key} {array.nbytes}", array)
                truth = quantized_matmul(
                    **arrays, width=outputs, bits=bits, input_gate=gate, first_width=first
                )
                for key, value in zip(("y", "y_more"), truth, strict=False):
                    array = value.astype(np.float32)
                    write_array(file, f"expect {key} {array.nbytes} {PRODUCT_TOLERANCE!r}", array)
                file.write(b"end\n")
                count += 1
    return count


def write_array(file: BinaryIO, header: str, array: np.ndarray) -> None:
    file.write(header.encode() + b"\n" + np.ascontiguousarray(array).tobytes() + b"\n")


def write_cases(path: Path) -> int:
    cases = (*ATTENTION_CASES, *MEMORY_CASES)
    with path.open("wb") as file:
        for case in cases:
            attention = case.operator.name == "SlidingWindowAttention"
            numbers = numbers_of(case)
            kind = "attention" if attention else "memory"
            file.write(f"case {case.name} {kind} {len(numbers)}\n".encode())
            for key, value in numbers.items():
                said = ",".join(map(str, value)) if isinstance(value, tuple) else value
                file.write(f"{key} {said}\n".encode())
            inputs = case.inputs()
            for name, array in inputs.items():
                write_array(file, f"array {name} {array.nbytes}", array)
            tolerance = CACHE_TOLERANCE[case.cache]
            for name, array in run_reference(case.operator, inputs, case.attributes).items():
                past = name.replace("present_", "past_", 1)
                stored = array.astype(inputs[past].dtype if past in inputs else np.float32)
                write_array(file, f"expect {name} {stored.nbytes} {tolerance!r}", stored)
            file.write(b"end\n")
        return len(cases) + write_products(file)


@pytest.fixture(scope="module")
def case_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    path = tmp_path_factory.mktemp("operators") / "cases"
    return path, write_cases(path)


def build_and_run(name: str, cases: Path, *options: str) -> subprocess.CompletedProcess[str]:
    program = build(name, "allmem_kernel_tests", *options) / "allmem_kernel_tests"
    return subprocess.run([program, cases], capture_output=True, text=True)


def test_all_cases_run_clean_under_the_sanitizers(case_file: tuple[Path, int]) -> None:
    path, count = case_file
    done = build_and_run("sanitized", path, *SANITIZED)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
    assert f"{count} cases on generic" in done.stdout


def test_all_cases_agree_without_vector_extensions(case_file: tuple[Path, int]) -> None:
    # What compilers without GCC's vector types build.
    path, count = case_file
    done = build_and_run("plain", path, "-DCMAKE_BUILD_TYPE=Release", "-DALLMEM_VECTORS=OFF")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
    assert f"{count} cases on generic: 0 failures" in done.stdout
