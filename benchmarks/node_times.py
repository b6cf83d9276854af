"""Where does the time of a step go? ONNX Runtime's profile of one token and of a piece, by node.

    python -m benchmarks.node_times MODEL… [--tokens 128] [--position 2048] [--threads 2]

Each node counts with its median over the repeats, so that other work on the machine blurs less.
Prints how many nodes the file has and how many are left when ONNX Runtime has optimized it, then
for decode and for a piece a table of time and share by kind of node. A profiled run is slower than
another; the first line of each table says by how much nodes and run differ.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from allmem_ops import library
from allmem_runtime import spec
from allmem_runtime.config import Manifest
from benchmarks.arguments import at_least_one, existing_folder, parser_of, tokens_or_none
from benchmarks.arguments import tokens as token_count

WARM = 3


class Stepper:
    """One session whose state stays in place, as the runtime keeps it."""

    def __init__(self, folder: Path, threads: int, made: Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        options.enable_profiling = True
        options.profile_file_prefix = str(made / "profile")
        library.register(options)
        self.session = ort.InferenceSession(
            str(folder / spec.GRAPH_FILE), options, providers=["CPUExecutionProvider"]
        )
        text = (folder / spec.MANIFEST_FILE).read_text(encoding="utf-8")
        self.manifest = Manifest.from_json(text, str(folder))
        self.state = [
            (layer, tensor.name, ort.OrtValue.ortvalue_from_numpy(
                np.zeros(tensor.shape, tensor.element)))
            for layer, tensor in self.manifest.state
        ]  # fmt: skip

    def step(self, count: int, position: int) -> None:
        """Read ``count`` tokens and make the logits of the last."""
        binding = self.session.io_binding()
        binding.bind_cpu_input(spec.INPUT_IDS, np.full((1, count), 5, np.int64))
        binding.bind_cpu_input(spec.POSITION, np.array([position], np.int64))
        binding.bind_cpu_input(spec.LOGIT_INDEX, np.array([count - 1], np.int64))
        for layer, name, value in self.state:
            binding.bind_ortvalue_input(spec.past_name(layer, name), value)
            binding.bind_ortvalue_output(spec.present_name(layer, name), value)
        binding.bind_output(spec.LOGITS)
        self.session.run_with_iobinding(binding)


def profile(folder: Path, threads: int, count: int, position: int, repeats: int) -> Any:
    """(events of nodes, one list of durations for each; durations of runs), in microseconds."""
    with tempfile.TemporaryDirectory() as made:
        stepper = Stepper(folder, threads, Path(made))
        for _ in range(WARM + repeats):
            stepper.step(count, position)
        events = json.loads(Path(stepper.session.end_profiling()).read_text(encoding="utf-8"))
    runs = sorted((e["ts"], e["dur"]) for e in events if e["name"] == "model_run")[WARM:]
    nodes: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in events:
        kernel = event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
        if kernel and event["ts"] >= runs[0][0]:
            nodes[event["args"]["op_name"], event["name"]].append(event["dur"])
    return nodes, [duration for _, duration in runs]


def table(title: str, nodes: Any, runs: list[int]) -> list[str]:
    """Rows of a Markdown table, the most expensive kind first."""
    cost: dict[str, list[float]] = defaultdict(list)
    for (kind, _), durations in nodes.items():
        cost[kind].append(float(np.median(durations)))
    total = sum(sum(values) for values in cost.values())
    run = float(np.median(runs))
    lines = [
        f"{title}: {run / 1e3:.2f} ms a run, {total / 1e3:.2f} ms in nodes",
        "| node | count | ms | share |",
        "|---|---|---|---|",
    ]
    for kind, values in sorted(cost.items(), key=lambda entry: -sum(entry[1])):
        share = 100 * sum(values) / total
        lines.append(f"| {kind} | {len(values)} | {sum(values) / 1e3:.3f} | {share:.1f} % |")
    return lines


def counts(folder: Path) -> tuple[int, int]:
    """Nodes in the file, and after ONNX Runtime's own optimizations."""
    with tempfile.TemporaryDirectory() as made:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = str(Path(made) / "optimized.onnx")
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", "weights"
        )
        library.register(options)
        ort.InferenceSession(
            str(folder / spec.GRAPH_FILE), options, providers=["CPUExecutionProvider"]
        )
        optimized = onnx.load(options.optimized_model_filepath, load_external_data=False)
    written = onnx.load(folder / spec.GRAPH_FILE, load_external_data=False)
    return len(written.graph.node), len(optimized.graph.node)


def main() -> None:
    """Print where the time of a step goes."""
    parser = parser_of("node_times", __doc__)
    parser.add_argument("models", nargs="+", type=existing_folder, help="model folders")
    parser.add_argument("--tokens", type=token_count, default=128, help="length of the piece")
    parser.add_argument("--position", type=tokens_or_none, default=2048, help="tokens read before")
    parser.add_argument("--threads", type=at_least_one, default=2, help="of a step")
    arguments = parser.parse_args()
    tokens, position, threads = arguments.tokens, arguments.position, arguments.threads
    for folder in arguments.models:
        text = (folder / spec.MANIFEST_FILE).read_text(encoding="utf-8")
        chunk = Manifest.from_json(text, str(folder)).chunk
        if position % chunk + tokens > chunk:
            parser.error(
                f"A piece of {tokens} tokens at position {position} crosses the boundary of a "
                f"chunk of {chunk}, which {folder} commits; give --tokens {chunk} and a "
                f"--position that {chunk} divides."
            )
        written, optimized = counts(folder)
        print(f"{folder.name}: {written} nodes, {optimized} when optimized\n", flush=True)
        for title, count, repeats in (("one token", 1, 40), (f"{tokens} tokens", tokens, 5)):
            print(
                "\n".join(table(title, *profile(folder, threads, count, position, repeats))),
                flush=True,
            )
            print("", flush=True)


if __name__ == "__main__":
    main()
