"""Tiny pretrained checkpoints on disk: a folder in transformers' layout and a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import numpy as np
from converter import architecture, converted, describe
from decoders import DECODERS, decoder
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers import decoders as token_decoders
from transformers import PreTrainedModel

from benchmarks.families.tiny import tiny_decoder

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>",
          *sorted(pre_tokenizers.ByteLevel.alphabet())[:92], "th", "12"]  # fmt: skip
MERGES = ("t h", "1 2")
_SPACE = "\u2581"
PIECES = [
    ("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), ("<tool>", 0.0, 4),
    *((f"<0x{byte:02X}>", 0.0, 6) for byte in (*b"\n\r\t~", 0xC3, 0xA9, 0xE2, 0x96, 0x81)),
    *((piece, -1.0 - place, 1) for place, piece in enumerate(
        ("th", _SPACE + "t", "he", _SPACE + "th", _SPACE + "the", "in", _SPACE * 2, "er", "the",
         *"abcdefghijklmnopqrstuvwxyz", *"ABC", _SPACE, *"0123456789", *".,!?'()-<>/"))),
]  # fmt: skip
"""Of sentence pieces: text, score and kind."""


def write_folder(folder: Path, name: str = "llama tied", **changes: object) -> PreTrainedModel:
    """Save a tiny decoder with a byte-level tokenizer; returns the decoder."""
    model = decoder(name, **changes)
    model.save_pretrained(folder)
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = token_decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\nA model.\n")
    return model


def byte_pairs(writer: gguf.GGUFWriter, split: str, merges: Sequence[str] = MERGES) -> None:
    """Add a tiny byte-level tokenizer to a GGUF file."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def sentence_pieces(writer: gguf.GGUFWriter) -> None:
    """Add a tiny tokenizer of sentence pieces to a GGUF file."""
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece for piece, _, _ in PIECES])
    writer.add_token_scores([score for _, score, _ in PIECES])
    writer.add_token_types([kind for _, _, kind in PIECES])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def write_gguf(
    file: Path,
    name: str = "llama tied",
    split: str = "smollm",
    extra_tensors: dict[str, np.ndarray] | None = None,
    extra_fields: dict[str, object] | None = None,
    tokenizer: Callable[[gguf.GGUFWriter], None] | None = None,
    template: str | None = TEMPLATE,
    kinds: dict[str, gguf.GGMLQuantizationType] | None = None,
    architecture_name: str | None = None,
    removed: str | None = None,
    **changes: object,
) -> PreTrainedModel:
    """Write a tiny decoder as llama.cpp's converter does; returns the decoder.

    ``name`` is one of ``DECODERS``, or the ``model_type`` of a family in ``benchmarks.families``.
    ``kinds`` says how matrices are quantized whose names contain its keys, ``tokenizer`` adds
    another one than ``byte_pairs``. ``architecture_name`` counts instead of the family's, and
    ``removed`` is a key of the metadata that is left out.
    """
    model = decoder(name, **changes) if name in DECODERS else tiny_decoder(name, **changes)
    config = model.config
    kind = architecture_name or architecture(config.model_type)
    writer = gguf.GGUFWriter(file, kind)
    writer.add_name("Tiny")
    writer.add_license("apache-2.0")
    describe(writer, config)
    if removed is not None:
        del writer.kv_data[0][removed]
    if tokenizer is None:
        byte_pairs(writer, split)
    else:
        tokenizer(writer)
    if template is not None:
        writer.add_chat_template(template)
    added = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32,
             str: writer.add_string, list: writer.add_array}  # fmt: skip
    for key, value in (extra_fields or {}).items():
        writer.kv_data[0].pop(key, None)
        added[type(value)](key, value)  # type: ignore[arg-type]
    (number,) = (one for one, known in gguf.MODEL_ARCH_NAMES.items() if known == kind)
    names = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.numpy()
        if architecture_name is None:
            values = converted(key, values, config)
        stem, _, leaf = key.rpartition(".")
        values, kind_of = np.ascontiguousarray(values), None
        for part, chosen in (kinds or {}).items():
            if part in key and values.ndim == 2:
                values, kind_of = gguf.quantize(values, chosen), chosen
        writer.add_tensor(f"{names.get_name(stem)}.{leaf}", values, raw_dtype=kind_of)
    for key, values in (extra_tensors or {}).items():
        writer.add_tensor(key, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
