"""The memory adapter: one safetensors file with the memories' tensors and what they belong to."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from allmem_exporters.errors import ConversionError
from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.memory_layer import MEMORY, memory_parameters
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.tensor_file import write_tensors
from allmem_runtime.files.atomic import USUAL
from allmem_runtime.strict_json import parse_object

FORMAT = "allmem-memory-adapter"
VERSION = 1
_HALF = ("_proj.weight", "fw_gate", "fw_up", "fw_down")
_EXACT = ("lr_proj.weight", "mom_proj.weight", "gate_proj.weight")

STRUCTURE = (
    "mem_width", "mem_heads", "mem_hidden_mult", "mem_residual", "mem_epsilon", "inner_loss",
    "norm_schedule", "grad_at", "lr_groups", "lr_reduce", "theta_rel", "conv_kernel", "conv_act",
    "qk_norm", "v_norm", "out_norm", "out_gate", "sink_rope",
)  # fmt: skip
"""Options that the memories were trained with and that a model must share."""


def base_digest(model: AllMemForCausalLM) -> str:
    """SHA-256 over the decoder's weights as float32, by name; memories are left out."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if MEMORY not in name:
            digest.update(f"{name} {list(parameter.shape)}\n".encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def save_adapter(model: AllMemForCausalLM, path: Path, manifest: dict[str, Any], base: str) -> None:
    """Write the memories of a model.

    Matrices are kept in float16, everything small in float32.

    Args:
        model: trained.
        path: of the file.
        manifest: what was trained how on what and what came out; plain values.
        base: ``base_digest`` of the decoder, taken before it was moved to another precision.

    Raises:
        StorageError: there is no room, or the folder cannot be written.
    """
    tensors = {}
    for name, parameter in memory_parameters(model).items():
        half = name.endswith(_HALF) and not name.endswith(_EXACT)
        tensors[name] = parameter.detach().cpu().to(torch.float16 if half else torch.float32)
    structure = {key: getattr(model.config, key) for key in STRUCTURE}
    text = {
        "format": FORMAT,
        "version": str(VERSION),
        "base": base,
        "config": json.dumps(structure, sort_keys=True),
        "manifest": json.dumps(manifest, sort_keys=True),
    }
    write_tensors(path, {name: t.contiguous() for name, t in tensors.items()}, text, mode=USUAL)


class Adapter:
    """An adapter file, opened and checked for its format.

    Attributes:
        config: options that a model must share, see ``STRUCTURE``.
        manifest: how it was trained.
        base: digest of the decoder it belongs to.

    Raises:
        ConversionError: the file is missing, damaged or no adapter.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                text = file.metadata() or {}
                if text.get("format") != FORMAT or text.get("version") != str(VERSION):
                    raise ConversionError(
                        f"{path} is no memory adapter of version {VERSION}.",
                        "Make one with `allmem finetune`.",
                    )
                self.base = text["base"]
                self.config: dict[str, Any] = parse_object(text["config"])
                self.manifest: dict[str, Any] = parse_object(text["manifest"])
                self._tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if set(self.config) != set(STRUCTURE):
                raise ValueError("its options are not those of a memory")
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise ConversionError(
                f"The memory adapter {path} cannot be read ({error}).", "Fetch an intact copy."
            ) from error

    @torch.no_grad()
    def apply(self, model: AllMemForCausalLM) -> None:
        """Give a model these memories.

        Args:
            model: with the decoder the adapter was trained on; its memories are replaced.

        Raises:
            ConversionError: the decoder, an option or a shape differs; names which.
        """
        tensors = self.memories(model.config, base_digest(model))
        for name, parameter in memory_parameters(model).items():
            parameter.copy_(tensors[name])

    def memories(self, config: AllMemConfig, digest: str) -> dict[str, Tensor]:
        """The memories for a model.

        Args:
            config: of the model.
            digest: ``base_digest`` of its decoder.

        Returns:
            By the names of the model's parameters, in float32.

        Raises:
            ConversionError: the decoder, an option or a shape differs; names which.
        """
        for key, value in self.config.items():
            if getattr(config, key) != value:
                raise ConversionError(
                    f"{self.path} was trained with {key} {value!r}; the model has "
                    f"{getattr(config, key)!r}.",
                    "Leave the option out: the adapter brings its own.",
                )
        if digest != self.base:
            raise ConversionError(
                f"{self.path} was trained on another decoder: its weights have another digest.",
                "Convert the very model it was trained on, with the same --dtype.",
            )
        with torch.device("meta"):
            parameters = memory_parameters(AllMemForCausalLM(config))
        if parameters.keys() != self._tensors.keys():
            odd = sorted(parameters.keys() ^ self._tensors.keys())[0]
            raise ConversionError(f"{self.path} does not fit the model: {odd}.")
        for name, parameter in parameters.items():
            tensor: Tensor = self._tensors[name]
            if tensor.shape != parameter.shape or not bool(tensor.isfinite().all()):
                raise ConversionError(f"{self.path}: {name} is misshapen or not finite.")
        return {name: tensor.float() for name, tensor in self._tensors.items()}
