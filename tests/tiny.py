"""A tiny AllMem model with a tokenizer and a chat template, random but fixed, made in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from allmem_exporters import AllMemConfig, AllMemForCausalLM
from allmem_exporters.onnx.export import export

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TRAINING_TEXT = [
    "The river went round the old mill and the boathouse, and nobody had seen the keys since May.",
    "Wer die Schlüssel findet, bringe sie bitte zurück; naïve café façade, 東京, emoji 🙂.",
]


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE: every text is a text for it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT, trainer)
    return tokenizer


def tiny_config(**changes: object) -> AllMemConfig:
    """Two layers, window 24, sinks 4, chunk 16."""
    options: dict[str, object] = {
        "backbone": "llama",
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "mem_width": 16,
        "window": 24,
        "sinks": 4,
        "chunk": 16,
        "max_position_embeddings": 64,
        "eos_token_id": 2,
    }
    return AllMemConfig(**{**options, **changes})


def tiny_model(config: AllMemConfig | None = None, seed: int = 0) -> AllMemForCausalLM:
    """Random weights; alpha is not 0, so the memory is heard."""
    torch.manual_seed(seed)
    model = AllMemForCausalLM(config or tiny_config()).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.allmem.alpha.normal_()
    return model


def write_tiny_checkpoint(folder: Path, config: AllMemConfig | None = None, seed: int = 0) -> Path:
    """A checkpoint folder as the converter would leave it."""
    tiny_model(config, seed).save_pretrained(folder)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    return folder


def write_tiny_model(folder: Path, config: AllMemConfig | None = None, seed: int = 0) -> Path:
    """An exported model folder; the export's own check is tested elsewhere."""
    checkpoint = write_tiny_checkpoint(folder.parent / f"{folder.name}-checkpoint", config, seed)
    export(checkpoint, folder, check=False)
    return folder
