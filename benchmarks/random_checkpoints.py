"""Pretrained checkpoints of a published shape with random weights, in shards as the makers' are.

    python -m benchmarks.random_checkpoints llama-3.1-8b FOLDER

They stand for models that are too large to be had, where time and memory are measured of what makes
and runs a model: `allmem make FOLDER OUT`. What such a model writes is noise.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from allmem_runtime.files.atomic import publish_folder
from allmem_runtime.quantities import format_bytes, format_duration
from benchmarks.arguments import parser_of
from benchmarks.random_models import CHATML, write_texts

SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }
}
"""The makers' config.json, by name."""

_SHARD = 5 * 10**9
_STD = 0.02
_WRITE = ("self_attn.o_proj", "mlp.down_proj")


def tensors(shape: dict[str, Any], seed: int) -> Iterator[tuple[str, Tensor]]:
    """Every weight by its name, one after the other; norms are 1, all else is random and small.

    Matrices that write to the stream are smaller by the root of twice the layers, as pretraining
    begins with (GPT-2). Else each layer would drown those before it, and make whole steps out of
    rounding, as no trained model does.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden, inner, head = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    queries, keys = shape["num_attention_heads"] * head, shape["num_key_value_heads"] * head
    matrices = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }

    writing = _STD / (2 * shape["num_hidden_layers"]) ** 0.5

    def random(rows: int, columns: int, std: float = _STD) -> Tensor:
        drawn = torch.empty(rows, columns, dtype=torch.bfloat16)
        return drawn.normal_(std=std, generator=generator)

    yield "model.embed_tokens.weight", random(shape["vocab_size"], hidden)
    for layer in range(shape["num_hidden_layers"]):
        for name, sizes in matrices.items():
            std = writing if name in _WRITE else _STD
            yield f"model.layers.{layer}.{name}.weight", random(*sizes, std)
        for name in ("input_layernorm", "post_attention_layernorm"):
            ones = torch.ones(hidden, dtype=torch.bfloat16)
            yield f"model.layers.{layer}.{name}.weight", ones
    yield "model.norm.weight", torch.ones(hidden, dtype=torch.bfloat16)
    if not shape["tie_word_embeddings"]:
        yield "lm_head.weight", random(shape["vocab_size"], hidden)


def random_checkpoint(name: str, folder: str | Path, seed: int = 0) -> int:
    """Write a checkpoint; returns the bytes of its weights.

    Args:
        name: a key of ``SHAPES``.
        folder: where it shall be.
        seed: of the weights.
    """
    shape, total = SHAPES[name], 0
    places: dict[str, str] = {}
    with publish_folder(Path(folder)) as partial:
        number, shard = 1, dict[str, Tensor]()

        def write() -> None:
            nonlocal number
            file = f"model-{number:05}.safetensors"
            save_file(shard, partial / file, metadata={"format": "pt"})
            places.update(dict.fromkeys(shard, file))
            shard.clear()
            number += 1

        for tensor_name, tensor in tensors(shape, seed):
            if sum(one.nbytes for one in shard.values()) + tensor.nbytes > _SHARD:
                write()
            shard[tensor_name] = tensor
            total += tensor.nbytes
        write()
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (partial / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        (partial / "config.json").write_text(json.dumps(shape, indent=1), encoding="utf-8")
        write_texts(partial, name, shape["vocab_size"])
        settings = {"chat_template": CHATML, "eos_token": "<|im_end|>"}
        (partial / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return total


def main() -> None:
    """Make one and say how long it took."""
    parser = parser_of("random_checkpoints", __doc__)
    parser.add_argument("name", choices=sorted(SHAPES), help="the shape")
    parser.add_argument("folder", type=Path, help="to be written")
    options = parser.parse_args()
    began = time.monotonic()
    size = random_checkpoint(options.name, options.folder)
    print(f"{options.folder}: {format_bytes(size)} in {format_duration(time.monotonic() - began)}")


if __name__ == "__main__":
    main()
