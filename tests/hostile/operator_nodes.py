"""Nodes of our operators as a hostile graph may hold them, made from a seed and run.

    python -m tests.hostile.operator_nodes --seed 0 --nodes 100000 [--library PATH] [--sanitized]

runs them in child processes and prints the seeds at which one ended by a signal, by a sanitizer's
report, or not at all. ``mutate`` and ``run`` are what a fuzzer needs.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnxruntime

from allmem_ops import library
from allmem_ops.reference.product import interleaved, interleaved_scales
from allmem_ops.schema import TTT_MEMORY
from allmem_ops.schema import VERSION as LATEST
from tests.hostile import watched
from tests.hostile.node_case import TYPES, Given, NodeCase
from tests.hostile.node_changes import CHANGES, Draft
from tests.ops.cases import AttentionSizes, Case, MemorySizes

Generator = np.random.Generator


def mutate(seed: int) -> NodeCase:
    """The node of this seed: one in eight is good, the others have one to three changes."""
    generator = np.random.default_rng([seed, 0xA11])
    draft = (_attention, _memory, _product, _experts)[int(generator.integers(4))](generator)
    names = [name for name, given in draft.inputs.items() if given is not None]
    for name in names:
        given = draft.inputs[name]
        if given is not None and generator.integers(4) == 0 and not name.startswith("past_"):
            draft.inputs[name] = replace(given, source="weight")
    if generator.integers(2):
        for name in draft.outputs:
            past = name.replace("present_", "past_", 1)
            if past in draft.inputs and past != name:
                draft.in_place[name] = past
    count = 0 if generator.integers(8) == 0 else int(generator.integers(1, 4))
    changes = [CHANGES[generator.integers(len(CHANGES))] for _ in range(count)]
    said = [change(draft, generator) for change in changes]
    return NodeCase(
        seed,
        draft.operator,
        tuple(text for text in said if text != "nothing"),
        draft.attributes,
        draft.inputs,
        draft.outputs,
        draft.aliases,
        draft.in_place,
        draft.version,
        int(generator.integers(1, 3)),
    )


def run(case: NodeCase) -> str:
    """Run the node once; ``ran``, or what it was refused with.

    Raises:
        AssertionError: a good node was refused.
    """
    try:
        _run(case)
    except watched.ORDINARY as error:
        assert case.changes, f"{case.label}: {error}"
        return str(error)
    return "ran"


def _run(case: NodeCase) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = case.threads
    options.enable_cpu_mem_arena = False  # a sanitizer sees the end of each tensor
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    library.register(options)
    session = onnxruntime.InferenceSession(
        case.model(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    memory = {name: _memory_of(given) for name, given in case.fed().items()}
    for name, (given, buffer) in memory.items():
        place = buffer.ctypes.data
        binding.bind_input(name, "cpu", 0, TYPES[given.element], given.dims, place)
    for name, element in case.outputs.items():
        if element is None:
            continue
        under = memory.get(case.in_place.get(name, ""))
        if under is None:
            binding.bind_output(name, "cpu")
        else:
            given, buffer = under
            binding.bind_output(name, "cpu", 0, TYPES[element], given.dims, buffer.ctypes.data)
    session.run_with_iobinding(binding)


def _memory_of(given: Given) -> tuple[Given, np.ndarray]:
    """Memory of exactly the input's size that begins as far off an aligned address as it says."""
    count = len(given.data)
    space = np.empty(count + given.shift + 64, np.uint8)
    first = -space.ctypes.data % 64 + given.shift
    exact = space[first : first + count]
    if given.shift == 0:
        exact = np.empty(count, np.uint8)  # a sanitizer sees its end
    exact[:] = np.frombuffer(given.data, np.uint8)
    return given, exact


def _pick(generator: Generator, *values: Any) -> Any:
    return values[generator.integers(len(values))]


def _attention(generator: Generator) -> Draft:
    kv_heads = _pick(generator, 1, 2, 3)
    sizes = AttentionSizes(
        batch=_pick(generator, 0, 1, 1, 2),
        time=_pick(generator, 0, 1, 1, 2, 5, 17),
        query_heads=kv_heads * _pick(generator, 1, 2, 3),
        kv_heads=kv_heads,
        head_dim=_pick(generator, 1, 2, 8, 17, 32),
        rotary_half=0,
        cache=_pick(generator, "float32", "float16", "int8"),
    )
    sizes = replace(sizes, rotary_half=int(generator.integers(0, sizes.head_dim // 2 + 1)))
    by_head = generator.integers(3) == 0
    widths = [int(n) for n in generator.integers(1, 20, kv_heads)]
    attributes: dict[str, Any] = {
        "window": tuple(widths) if by_head else widths[0],
        "sinks": _pick(generator, 0, 1, 4),
        "scale": _pick(generator, 0.0, 1e-45, 0.3, 5.0, 3e38),
        "sink_rope": _pick(generator, "clamped", "true"),
        "norm_epsilon": _pick(generator, 0.0, 1e-45, 1e-6, 1.0, 3e38),
    }
    if generator.integers(4) == 0:
        attributes["rope_amplitude"] = _pick(generator, 0.0, 1e-45, 0.7, 2.0, 3e38)
    capped = generator.integers(3) == 0
    if capped:
        attributes["softcap"] = _pick(generator, 1e-6, 0.5, 30.0, 3e38)
    sizes = replace(sizes, sink_logits=generator.integers(3) == 0)
    position = _pick(generator, 0, 1, 7, 100, 1 << 40)
    case = Case("hostile", sizes, attributes, position, int(generator.integers(1 << 30)))
    draft = _draft(case, attributes, generator)
    least = 4 if sizes.sink_logits else 3 if capped else 2 if by_head else 1
    draft.version = int(generator.integers(least, LATEST + 1))
    return draft


def _memory(generator: Generator) -> Draft:
    chunk = _pick(generator, 1, 8, 20)
    time = _pick(generator, 0, 1, 1, 2, 5, 17)
    sizes = MemorySizes(
        batch=_pick(generator, 0, 1, 1, 2),
        time=min(time, chunk),
        heads=_pick(generator, 1, 2, 3),
        memory_dim=_pick(generator, 1, 4, 8, 17),
        hidden=_pick(generator, 1, 4, 16, 33),
        kernel=_pick(generator, 1, 2, 4),
    )
    attributes: dict[str, Any] = {"chunk": chunk}
    for attribute in TTT_MEMORY.attributes:
        if attribute.choices and generator.integers(2):
            attributes[attribute.name] = _pick(generator, *attribute.choices)
    for name in ("residual", "out_norm"):
        attributes[name] = int(generator.integers(2))
    attributes["clip"] = _pick(generator, 0.0, 1e-45, 0.1, 3e38)
    attributes["epsilon"] = _pick(generator, 1e-12, 1e-6, 1e-2)
    position = int(generator.integers(4)) * chunk + chunk - min(time, chunk)
    case = Case("hostile", sizes, attributes, position, int(generator.integers(1 << 30)))
    draft = _draft(case, attributes, generator)
    draft.version = int(generator.integers(1, LATEST + 1))
    return draft


def _draft(case: Case, attributes: dict[str, Any], generator: Generator) -> Draft:
    arrays = case.inputs()
    activation = _pick(generator, "float32", "float32", "float16")
    for name in ("qkv", "control"):
        if name in arrays:
            arrays[name] = arrays[name].astype(activation)
    draft = Draft(case.operator.name, attributes, {})
    for tensor in case.operator.inputs:
        array = arrays.get(tensor.name)
        draft.inputs[tensor.name] = None if array is None else Given.of(array)
    for output in case.operator.outputs:
        past = arrays.get(output.name.replace("present_", "past_", 1))
        draft.outputs[output.name] = activation if past is None else str(past.dtype)
    return draft


def _product(generator: Generator) -> Draft:
    bits, gated = _pick(generator, 4, 8), bool(generator.integers(2))
    inputs, width = _pick(generator, 1, 31, 32, 70), _pick(generator, 1, 16, 17, 40)
    rows = _pick(generator, (), (0,), (1,), (2,), (9,), (2, 3), (1, 0, 4))
    blocks = -(-inputs // 32)
    numbers = generator.integers(0, 1 << bits, (width, blocks, 32), np.uint8)
    scale = generator.uniform(1e-3, 1e-2, (width, blocks))
    x = generator.standard_normal((*rows, (1 + gated) * inputs)).astype(np.float32)
    x_width = x.shape[-1]
    more = x_width > 1 and generator.integers(3) == 0
    if more:
        x_width = int(generator.integers(1, x_width))
    arrays = {
        "x": x[..., :x_width],
        "numbers": interleaved(numbers, bits),
        "scales": interleaved_scales(*([scale, -7 * scale] if bits == 4 else [scale])),
    }
    given: dict[str, Given | None] = {name: Given.of(array) for name, array in arrays.items()}
    bias = Given.of(generator.standard_normal(width).astype(np.float32))
    if generator.integers(2) or more:
        given["bias"] = bias if generator.integers(2) else None
    if more:
        given["x_more"] = Given.of(x[..., x_width:])
    first = int(generator.integers(1, width)) if width > 1 and generator.integers(3) == 0 else 0
    attributes: dict[str, Any] = {"width": width, "bits": bits, "first_width": first}
    attributes["input_gate"] = "silu" if gated else "none"
    draft = Draft("QuantisedMatMul", attributes, {})
    draft.version = int(generator.integers(1, LATEST + 1))
    draft.inputs = given
    draft.outputs = {"y": "float32", **({"y_more": "float32"} if first else {})}
    return draft


def _experts(generator: Generator) -> Draft:
    bits, gated = _pick(generator, 4, 8, 32), bool(generator.integers(2))
    inputs, width = _pick(generator, 1, 31, 32, 70), _pick(generator, 1, 16, 17, 40)
    tokens, choices, experts = _pick(generator, 0, 1, 1, 5), _pick(generator, 1, 2, 3), 4
    x_shape = (tokens, _pick(generator, 1, choices), (1 + gated) * inputs)
    arrays: dict[str, np.ndarray | None] = {
        "x": generator.standard_normal(x_shape).astype(np.float32),
        "expert": generator.integers(0, experts, (tokens, choices)),
        "matrix": None,
    }
    if bits == 32:
        arrays["matrix"] = generator.standard_normal((experts, width, inputs)).astype(np.float32)
    else:
        blocks = -(-inputs // 32)
        numbers = generator.integers(0, 1 << bits, (experts, width, blocks, 32), np.uint8)
        scale = generator.uniform(1e-3, 1e-2, (width, blocks))
        arrays["numbers"] = np.stack([interleaved(one, bits) for one in numbers])
        kinds = [scale, -7 * scale] if bits == 4 else [scale]
        arrays["scales"] = np.stack([interleaved_scales(*kinds)] * experts)
    if generator.integers(2):
        arrays.setdefault("numbers", None)
        arrays.setdefault("scales", None)
        arrays["bias"] = generator.standard_normal((experts, width)).astype(np.float32)
    attributes: dict[str, Any] = {"width": width, "bits": bits}
    attributes["input_gate"] = "silu" if gated else "none"
    draft = Draft("ExpertMatMul", attributes, {})
    draft.version = int(generator.integers(1, LATEST + 1))
    draft.inputs = {n: None if a is None else Given.of(a) for n, a in arrays.items()}
    draft.outputs = {"y": "float32"}
    return draft


@click.command()
@click.option("--seed", default=0, help="The first one.")
@click.option("--nodes", default=1000, help="How many.")
@click.option("--library", "path", type=click.Path(path_type=Path), help="The library to run.")
@click.option("--sanitized", is_flag=True, help="It was built with ALLMEM_SANITIZE.")
@click.option("--child", is_flag=True, hidden=True)
def main(seed: int, nodes: int, path: Path | None, sanitized: bool, child: bool) -> None:
    """Run generated nodes in child processes and print where one crashed or hung."""
    if child:
        watched.run_all(range(seed, seed + nodes), lambda number: run(mutate(number)))
        return
    found = watched.watch(
        "tests.hostile.operator_nodes", seed, nodes, watched.environment(path, sanitized)
    )
    for failure in found.failures:
        print(f"{mutate(failure.seed).label}\n{failure.report}\n", flush=True)
    print(f"{found.done} nodes, {found.ran} ran, {len(found.failures)} failures")
    sys.exit(bool(found.failures))


if __name__ == "__main__":
    main()
