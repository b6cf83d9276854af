"""Runs in a process of its own, on the stand-in CUDA device; prints what it saw as JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from cuda_stand_in import Counters

import allmem_runtime
from allmem_runtime import spec
from allmem_runtime.engine.buffers import DeviceBuffers

COUNTERS = Counters()
# (tokens, position, rows): pieces of many lengths, single tokens with and without logits, over
# chunks of 16 and once round a ring of 4 + 24.
STEPS: list[tuple[int, int, Sequence[int]]] = [
    (16, 0, ()),
    (5, 16, (4,)),
    (1, 21, (0,)),
    (1, 22, (0,)),
    (1, 23, ()),
    (3, 24, (0, 2)),
    (1, 27, (0,)),
    (2, 28, ()),
    (2, 30, (1,)),
    (16, 32, ()),
    (1, 48, (0,)),
    (7, 49, ()),
    (1, 56, (0,)),
]


def placement(folder: Path, portable: bool) -> dict[str, Any]:
    """Where ONNX Runtime puts nodes, copies between providers included."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.optimized_model_filepath = str(Path.cwd() / "optimized.onnx")
    if not portable:
        options.register_custom_ops_library(os.environ["ALLMEM_OPS_LIBRARY"])
    session = ort.InferenceSession(
        folder / spec.GRAPH_FILE, options, providers=["CUDAExecutionProvider"], enable_fallback=0
    )
    nodes: dict[str, list[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        nodes.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
    kept = onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node
    copies = [node.op_type for node in kept if node.op_type.startswith("Memcpy")]
    return {"nodes": nodes, "copies": copies}


def blank(buffers: DeviceBuffers, state: spec.StateSpec) -> bool:
    """Whether every tensor of a state is zeros."""
    names = [spec.past_name(layer, tensor.name) for layer, tensor in state]
    return not any(buffers.current.read(name).any() for name in names)


def steps(model: allmem_runtime.Model) -> list[dict[str, Any]]:
    """What each step costs, and which slots of the first layer's keys it writes."""
    buffers = model.engine.buffers()
    name = spec.past_name(0, "key")
    mark = np.full_like(buffers.current.read(name), 77)  # no key; what is not written keeps it
    seen = []
    for tokens, position, rows in STEPS:
        buffers.current.write(name, mark)
        before = COUNTERS.all()
        model.engine.run(buffers, np.arange(tokens), position, np.array(rows, np.int64))
        cost = COUNTERS.since(before)
        changed = (buffers.current.read(name) != mark).any(axis=(0, 1, 3))
        step = {"tokens": tokens, "position": position, "rows": len(rows), "cost": cost}
        seen.append({**step, "written": np.flatnonzero(changed).tolist()})
    return seen


def sessions(model: allmem_runtime.Model) -> list[dict[str, int]]:
    """What sessions leave behind that come one after the other, and what a token costs in them."""
    left = []
    for _ in range(4):
        session = model.session()
        session.feed([3 + i % 300 for i in range(70)])
        session.checkpoint()
        before = COUNTERS.all()
        session.feed([5], "last")
        token = COUNTERS.since(before)
        session.rollback()
        session.fork().feed([6, 7], "all")
        del session
        now = COUNTERS.all()
        left.append(
            {
                "graphs": now["graphs"],
                "memory": now["bytes_in_use"],
                "token_h2d": token["h2d_bytes"],
                "token_d2h": token["d2h_bytes"],
            }
        )
    return left


def report(folder: Path, operators: str, cuda_graph: str) -> dict[str, Any]:
    """Everything about one model."""
    made = {"placement": placement(folder, operators == "portable")}
    before = COUNTERS.all()
    model = allmem_runtime.load(
        folder,
        device="cuda",
        operators=operators,
        cuda_graph=None if cuda_graph == "graphs" else False,
    )
    engine = model.engine
    made["loading"] = COUNTERS.since(before)
    made["vocab"] = model.manifest.backbone.vocab_size
    made["engine"] = {
        "operators": engine.operators,
        "cuda_graph": engine.cuda_graph,
        "notices": engine.notices,
        "device": str(engine.device),
        "why": engine.device.why,
    }
    # The first were made when the model was loaded, the others are made, and captured, now.
    both = [engine.buffers(), engine.buffers()]
    made["blank"] = [blank(buffers, model.manifest.state) for buffers in both]
    for buffers in both:
        engine.give_back(buffers)
    made["memory_before_steps"] = COUNTERS.all()["bytes_in_use"]
    made["steps"] = steps(model)
    made["memory_after_steps"] = COUNTERS.all()["bytes_in_use"]
    made["sessions"] = sessions(model)
    made["tf32_products"] = COUNTERS.since(before)["tf32_products"]
    made["problems"] = COUNTERS.problems()
    return made


if __name__ == "__main__":
    print(json.dumps(report(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
