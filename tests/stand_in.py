"""A toy model of standard ONNX operators that keeps every state tensor of the contract.

Its whole state is sums modulo a prime, so any cutting of the tokens gives bit-equal states, each
token and its place matter, and a piece that crosses a chunk boundary fails in the graph itself.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from runtime.tokenizers_for_tests import byte_level_json

from allmem_runtime import config, spec

PRIME = 997
CHUNK = 48
VOCAB = 330
LAYERS = 2
WINDOW = 64
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def manifest(files: dict[str, bytes], **changes: object) -> config.Manifest:
    """The manifest of the toy model."""
    values: dict[str, object] = {
        "name": "stand-in",
        "backbone": config.Backbone("llama", LAYERS, 8, 16, 2, 1, 4, VOCAB, 2048),
        "memory": config.Memory(1, 4, 8, 4),
        "window": WINDOW,
        "sinks": 2,
        "chunk": CHUNK,
        "cache": "float16",
        "weights": "float32",
        "operators": {"SlidingWindowAttention": 1, "TTTMemory": 1},
        "begin_tokens": (0,),
        "end_tokens": (2,),
        "files": {
            name: config.FileRecord(len(data), hashlib.sha256(data).hexdigest())
            for name, data in files.items()
        },
    }
    return config.Manifest(**{**values, **changes})  # type: ignore[arg-type]


def graph(state: spec.StateSpec, salt: int) -> onnx.GraphProto:
    """Nodes of the toy model; ``salt`` makes its answers differ from another one's."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {
        "chunk": np.array([CHUNK], np.int64),
        "prime": np.array([PRIME], np.int64),
        "one": np.array(1, np.int64),
        "ones": np.array([1], np.int64),
        "zero": np.array(0, np.int64),
        "seven": np.array([7], np.int64),
        "flat": np.array([-1], np.int64),
        "fits": np.zeros(CHUNK + 1, np.int64),
        "embedding": (np.arange(VOCAB, dtype=np.int64) * 29 + salt) % PRIME,
        "spread": (np.arange(VOCAB, dtype=np.int64) * 37) % 257,
        "eleven": np.array([[11]], np.int64),
        "range": np.array([257], np.int64),
    }

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    node("Shape", ["input_ids"], "time", start=1, end=2)
    node("Mod", ["position", "chunk"], "into_chunk")
    node("Add", ["into_chunk", "time"], "reach")
    node("Gather", ["fits", "reach"], "guard")  # out of bounds iff the piece leaves its chunk
    node("Squeeze", ["time"], "time_scalar")
    node("Range", ["zero", "time_scalar", "one"], "offsets")
    node("Add", ["offsets", "position"], "places")
    node("Mod", ["places", "seven"], "place_mod")
    node("Add", ["place_mod", "one"], "place_weight")
    node("Gather", ["embedding", "input_ids"], "embedded")
    node("Mul", ["embedded", "place_weight"], "weighted")
    node("Add", ["weighted", "guard"], "guarded")
    node("Unsqueeze", ["offsets", "ones"], "later")
    node("GreaterOrEqual", ["later", "offsets"], "earlier")  # [time, time]
    node("Where", ["earlier", "guarded", "zero"], "so_far")
    node("ReduceSum", ["so_far", "axis1_list"], "sums", keepdims=0)
    node("Unsqueeze", ["sums", "zeros"], "running")
    constants["zeros"] = np.array([0], np.int64)
    node("ReduceSum", ["guarded", "axis1_list"], "total", keepdims=0)
    constants["axis1_list"] = np.array([1], np.int64)

    node("Reshape", ["past.0.weights", "flat"], "weights_flat")
    node("Gather", ["weights_flat", "zero"], "first_float")
    node("Cast", ["first_float"], "first", to=TensorProto.INT64)
    node("Add", ["running", "first"], "sum")
    node("Mod", ["sum", "prime"], "hidden")  # [1, time]
    node("Gather", ["hidden", "logit_index"], "rows", axis=1)  # [1, rows]
    node("Mul", ["rows", "eleven"], "scaled")
    node("Unsqueeze", ["scaled", "two"], "column")
    constants["two"] = np.array([2], np.int64)
    node("Add", ["column", "spread"], "mixed")
    node("Mod", ["mixed", "range"], "score")
    node("Cast", ["score"], "score_float", to=TensorProto.FLOAT)
    node("Mul", ["score_float", "scale"], "logits")
    constants["scale"] = np.array([0.03125], np.float32)

    types = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "T"]),
        helper.make_tensor_value_info("position", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("logit_index", TensorProto.INT64, ["R"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "R", VOCAB])]
    for number, (layer, tensor) in enumerate(state):
        past, present = spec.past_name(layer, tensor.name), spec.present_name(layer, tensor.name)
        inputs.append(helper.make_tensor_value_info(past, types[tensor.element], tensor.shape))
        outputs.append(helper.make_tensor_value_info(present, types[tensor.element], tensor.shape))
        ramp = np.arange(np.prod(tensor.shape), dtype=np.int64).reshape(tensor.shape)
        constants[f"ramp.{number}"] = ramp % 13 + 1 + (number if tensor.name != "weights" else 0)
        node("Cast", [past], f"old.{number}", to=TensorProto.INT64)
        node("Mul", [f"ramp.{number}", "total"], f"added.{number}")
        node("Add", [f"old.{number}", f"added.{number}"], f"new.{number}")
        node("Mod", [f"new.{number}", "prime"], f"kept.{number}")
        node("Cast", [f"kept.{number}"], present, to=types[tensor.element])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_graph(nodes, "step", inputs, outputs, initializers)


def write(
    folder: Path,
    *,
    salt: int = 0,
    name: str = "stand-in",
    template: bool | str = True,
    window: int = WINDOW,
) -> Path:
    """Write the toy model, with its own chat template or another, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        spec.TOKENIZER_FILE: byte_level_json().encode(),
        spec.GENERATION_FILE: json.dumps({"eos_token_id": 2, "max_length": 20}).encode(),
    }
    if template:
        files[spec.CHAT_TEMPLATE_FILE] = (TEMPLATE if template is True else template).encode()
    state = manifest({}, window=window).state
    model = helper.make_model(
        graph(state, salt), ir_version=10, opset_imports=[helper.make_opsetid("", 21)]
    )
    embedding = next(t for t in model.graph.initializer if t.name == "embedding")
    files[spec.WEIGHTS_FILE] = bytes(embedding.raw_data)
    onnx.external_data_helper.set_external_data(
        embedding, spec.WEIGHTS_FILE, offset=0, length=len(embedding.raw_data)
    )
    embedding.ClearField("raw_data")
    for file, data in files.items():
        (folder / file).write_bytes(data)
    text = manifest(files, name=name, window=window).to_json()
    set_manifest(model, text)
    (folder / spec.GRAPH_FILE).write_bytes(model.SerializeToString())
    (folder / spec.MANIFEST_FILE).write_text(text)
    return folder


def set_manifest(model: onnx.ModelProto, text: str) -> None:
    """Replace the manifest in a graph's metadata."""
    del model.metadata_props[:]
    model.metadata_props.add(key=spec.METADATA_KEY, value=text)
