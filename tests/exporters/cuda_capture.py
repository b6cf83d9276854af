"""Run in a process of its own: opens models on the CUDA provider and captures their decode step.

python cuda_capture.py MODEL… prints a JSON object of what happened for each folder.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from cuda_stand_in import Counters

from allmem_ops import library
from allmem_runtime.config import Manifest
from allmem_runtime.spec import (
    GRAPH_FILE,
    INPUT_IDS,
    LOGIT_INDEX,
    LOGITS,
    MANIFEST_FILE,
    POSITION,
    past_name,
    present_name,
)

CUDA = "CUDAExecutionProvider"


def examine(folder: Path) -> dict[str, Any]:
    """Which provider runs what, and what a captured step of one token does."""
    text = (folder / MANIFEST_FILE).read_text(encoding="utf-8")
    manifest = Manifest.from_json(text, MANIFEST_FILE)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    library.register(options)
    session = onnxruntime.InferenceSession(
        str(folder / GRAPH_FILE), options, providers=[(CUDA, {"enable_cuda_graph": "1"})]
    )
    elsewhere = Counter(
        f"{node.op_type} on {part.ep_name}"
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
        if part.ep_name != CUDA
    )
    kept, binding = [], session.io_binding()
    for name, value in (
        (INPUT_IDS, np.zeros((1, 1), np.int64)),
        (POSITION, np.zeros(1, np.int64)),
        (LOGIT_INDEX, np.zeros(1, np.int64)),
    ):
        kept.append(onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
        binding.bind_ortvalue_input(name, kept[-1])
    for layer, tensor in manifest.state:
        array = np.zeros(tensor.shape, tensor.element)
        kept.append(onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
        binding.bind_ortvalue_input(past_name(layer, tensor.name), kept[-1])
        binding.bind_ortvalue_output(present_name(layer, tensor.name), kept[-1])
    logits = np.zeros((1, 1, manifest.backbone.vocab_size), np.float32)
    kept.append(onnxruntime.OrtValue.ortvalue_from_numpy(logits, "cuda", 0))
    binding.bind_ortvalue_output(LOGITS, kept[-1])
    device = Counters()
    before = device.all()
    session.run_with_iobinding(binding)
    first = device.since(before)
    before = device.all()
    session.run_with_iobinding(binding)
    return {
        "elsewhere": dict(elsewhere),
        "capture": first,
        "replay": device.since(before),
        "problems": device.problems(),
    }


if __name__ == "__main__":
    print(json.dumps({name: examine(Path(name)) for name in sys.argv[1:]}))
