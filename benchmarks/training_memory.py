"""What one step of fine-tuning needs at its peak, and what all layers of a larger model would.

    python -m benchmarks.training_memory smollm2-135m --layers 30 [--length 8192]
    python -m benchmarks.training_memory qwen3-0.6b --layers 2,4

Random weights of a published shape, a plain text of random tokens of which every one counts, stage
``model``, AdamW's moments included. Each number of layers has a process of its own on the CPU, with
bfloat16 products; told is what the process held at most beyond Python and PyTorch. What is kept for
the way back grows by the same for every layer, so a line through two numbers tells of all.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from allmem_runtime.quantities import format_bytes
from benchmarks.arguments import integers, parser_of, tokens
from benchmarks.random_models import SHAPES, filled_model


def peak_bytes() -> int:
    """The most this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def one_step(name: str, layers: int, length: int, window: int, chunk: int) -> None:
    """Do one step and print the peak in bytes and the seconds it took."""
    import torch

    from allmem_exporters import AllMemConfig
    from allmem_exporters.finetune.data import Sequence
    from allmem_exporters.finetune.losses import model_loss
    from allmem_exporters.finetune.parameters import make_optimizer, prepare
    from allmem_exporters.finetune.passes import Passes, Shape
    from allmem_exporters.finetune.settings import Settings
    from allmem_runtime.engine.malloc import map_large_blocks

    map_large_blocks()  # as a run of training does
    before = peak_bytes()
    settings = Settings()
    shape: dict[str, Any] = {**SHAPES[name], "num_hidden_layers": layers, "eos_token_id": 2}
    config = AllMemConfig(**shape, window=window, sinks=64, chunk=chunk)
    model = filled_model(config, "bfloat16", seed=0)
    prepare(model, torch.bfloat16, writes=True)
    optimizer = make_optimizer(model, settings.optimizer)
    drawn = np.random.default_rng(0).integers(3, config.vocab_size, length)
    text = Sequence(drawn.astype(np.int64), np.ones(length, bool), "text", "train", "random")
    began = time.perf_counter()
    loss = model_loss(Passes(model), text, Shape(window, 64, chunk), settings.beyond_window, 0.0, 1)
    optimizer.step()
    seconds = time.perf_counter() - began
    if not np.isfinite(loss.value) or loss.tokens != length - 1:
        raise RuntimeError(
            f"the step learned from {loss.tokens} tokens, with a loss of {loss.value}"
        )
    print(peak_bytes() - before, seconds)


def at_all(peaks: dict[int, float], layers: int) -> tuple[float, float]:
    """Peak in bytes with all ``layers`` and what each adds, by the line through the peaks."""
    each, base = np.polyfit(list(peaks), list(peaks.values()), 1)
    return float(base + each * layers), float(each)


def main() -> None:
    """Peak memory of one training step of a model of one shape."""
    parser = parser_of("training_memory", __doc__)
    parser.add_argument("name", choices=sorted(SHAPES), help="the shape")
    parser.add_argument("--layers", type=integers, default=[2, 4], help="how many of its layers")
    parser.add_argument("--length", type=tokens, default=8192, help="tokens of the sequence")
    parser.add_argument("--window", type=tokens, default=1024, help="tokens the attention sees")
    parser.add_argument("--chunk", type=tokens, default=256, help="tokens between commits")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    name, counts = arguments.name, arguments.layers
    length, window, chunk = arguments.length, arguments.window, arguments.chunk
    if arguments.child:
        one_step(name, counts[0], length, window, chunk)
        return
    whole = int(str(SHAPES[name]["num_hidden_layers"]))
    print(f"{name}, {length} tokens, window {window}, chunk {chunk}, bfloat16 products")
    peaks: dict[int, float] = {}
    for count in counts:
        command = [sys.executable, "-m", "benchmarks.training_memory", name, "--child"]
        command += ["--layers", str(count), "--length", str(length)]
        command += ["--window", str(window), "--chunk", str(chunk)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        peaks[count] = float(told[0])
        print(
            f"{count} layers: {format_bytes(peaks[count])} at most, {float(told[1]):.0f} s a step"
        )
    if len(peaks) > 1 and whole not in peaks:
        found, each = at_all(peaks, whole)
        print(
            f"all {whole} layers, by the line: {format_bytes(found)}, {format_bytes(each)} for each"
        )


if __name__ == "__main__":
    main()
