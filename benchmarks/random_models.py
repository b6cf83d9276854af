"""Models of a published shape with random weights: made in a minute, for measuring speed and size.

    python -m benchmarks.random_models qwen3-0.6b FOLDER [--activations float16] [--window 1024] …

What such a model writes is noise. Its tokenizer knows every byte and, for all other ids, a filler.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from allmem_exporters import AllMemConfig, AllMemForCausalLM
from allmem_exporters.model.initialize import initialize_memory
from allmem_exporters.model.weights import WeightsInMemory
from allmem_exporters.onnx.export import put_matrices
from allmem_exporters.onnx.export_options import ExportOptions
from allmem_exporters.onnx.package_writer import check_destination, write_folder
from allmem_exporters.onnx.trace import trace
from allmem_runtime.files.atomic import publish_folder
from allmem_runtime.quantities import format_bytes, format_duration
from allmem_runtime.spec import CHAT_TEMPLATE_FILE, GENERATION_FILE, TOKENIZER_FILE
from benchmarks.arguments import parser_of, tokens, tokens_or_none

_QWEN3 = {
    "backbone": "qwen3",
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
}
SHAPES: dict[str, dict[str, object]] = {
    "qwen3-0.6b": {**_QWEN3, "hidden_size": 1024, "intermediate_size": 3072},
    "qwen3-1.7b": {**_QWEN3, "hidden_size": 2048, "intermediate_size": 6144},
    "smollm2-135m": {
        "backbone": "llama",
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        "tie_word_embeddings": True,
    },
}
"""The pretrained decoder's sizes, by name."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_STD = 0.02
_BLOCK = (1 << 20) + 7  # odd, so that rows of a matrix do not repeat


def random_model(
    name: str, folder: str | Path, activations: str = "float16", *, seed: int = 0, **changes: object
) -> Path:
    """Write an exported model with random weights.

    Args:
        name: a key of ``SHAPES``.
        folder: where the model shall be; an earlier export there is replaced.
        activations: ``float16``, with weights in float16, or ``float32``.
        seed: of the weights.
        changes: fields of ``AllMemConfig``, such as ``window``, ``sinks`` and ``chunk``.

    Returns:
        The folder, which ``allmem_runtime.load`` opens.

    Raises:
        KeyError: there is no such shape.
        ConfigError: a change is not allowed.
        ExportError: the folder cannot be written or holds something else.
    """
    options: dict[str, Any] = {"eos_token_id": 2, **SHAPES[name], **changes}
    config = AllMemConfig(**options)
    model = filled_model(config, activations, seed)
    with tempfile.TemporaryDirectory(prefix="allmem-") as texts:
        write_texts(Path(texts), name, config.vocab_size)
        check_destination(Path(folder), force=False)
        with publish_folder(Path(folder)) as partial:
            weights = WeightsInMemory(model)
            graph = trace(weights, activations)
            put_matrices(graph, weights, ExportOptions(activations=activations))
            write_folder(graph, config, Path(texts), partial, activations, activations)
    return Path(folder)


@torch.no_grad()
def filled_model(config: AllMemConfig, activations: str, seed: int) -> AllMemForCausalLM:
    """A model of this configuration; norms are 1, everything else is random and small."""
    with torch.device("meta"):
        model = AllMemForCausalLM(config)
    model.to(getattr(torch, activations)).to_empty(device="cpu").eval()
    model.tie_weights()
    generator = torch.Generator().manual_seed(seed)
    block = _STD * torch.randn(_BLOCK, generator=generator)
    block = block.to(model.dtype)
    for parameter_name, parameter in model.named_parameters():
        if ".allmem." in parameter_name:
            continue
        if parameter.dim() == 1 and "norm" in parameter_name:
            parameter.fill_(1.0)
        else:
            _tile(parameter, block)
    for layer in model.model.layers:
        initialize_memory(layer.allmem, generator)
        layer.allmem.alpha.fill_(0.5)
    return model


def _tile(tensor: Tensor, block: Tensor) -> None:
    """Fill with one block over and over: drawing billions of numbers takes minutes."""
    flat = tensor.view(-1)
    for start in range(0, flat.numel(), block.numel()):
        part = flat[start : start + block.numel()]
        part.copy_(block[: part.numel()])


def write_texts(folder: Path, name: str, vocab_size: int) -> None:
    """Write tokenizer, chat template, generation settings and provenance."""
    names = [*_CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"<filler {number}>" for number in range(len(names), vocab_size)]
    vocabulary = {token: number for number, token in enumerate(names[:vocab_size])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in _CONTROL])
    tokenizer.save(str(folder / TOKENIZER_FILE))
    (folder / CHAT_TEMPLATE_FILE).write_text(CHATML, encoding="utf-8")
    (folder / GENERATION_FILE).write_text('{"eos_token_id": 2}', encoding="utf-8")
    provenance = {"name": f"{name} (random)", "weights": "random"}
    (folder / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")


def main() -> None:
    """Make one model and say how long it took."""
    parser = parser_of("random_models", __doc__)
    parser.add_argument("name", choices=sorted(SHAPES), help="the shape")
    parser.add_argument("folder", type=Path, help="to be written")
    parser.add_argument(
        "--activations",
        choices=("float16", "float32"),
        default="float16",
        help="type of everything between tokens and logits",
    )
    parser.add_argument("--window", type=tokens, default=1024, help="tokens the attention sees")
    parser.add_argument("--sinks", type=tokens_or_none, default=64, help="first tokens it keeps")
    parser.add_argument("--chunk", type=tokens, default=512, help="tokens between commits")
    arguments = parser.parse_args()
    started = time.monotonic()
    sizes = {key: getattr(arguments, key) for key in ("window", "sinks", "chunk")}
    folder = random_model(arguments.name, arguments.folder, arguments.activations, **sizes)
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(
        f"{folder}: {format_bytes(size)} in {format_duration(seconds)}, at most "
        f"{format_bytes(peak)} resident"
    )


if __name__ == "__main__":
    main()
