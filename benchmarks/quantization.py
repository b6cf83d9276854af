"""What do fewer bits cost? Perplexity, size and speed of each way to store weights, and keys.

    python -m benchmarks.quantization CHECKPOINT TEXT… [--tokens 8192] [--weights int8,int4]

CHECKPOINT is what `allmem convert` wrote. Each choice is exported to a temporary folder (or kept
with --keep FOLDER) and reads the same tokens through the runtime, as it is shipped; its perplexity
is held against the float32 export's, text by text. Prints one JSON object a line, and exits with 1
if int8 or int8 keys lose more than 0.5 % or int4 more than 4 %.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_exporters.onnx.export import export
from allmem_exporters.quantization.formats import stored_format
from allmem_runtime import load
from allmem_runtime.spec import WEIGHTS_FILE
from benchmarks.arguments import existing_file, existing_folder, names, parser_of, tokens
from benchmarks.perplexity import losses

AIMS = {"float16": 1.001, "int8": 1.005, "int4": 1.04, "float32, int8 keys": 1.005}


def read(folder: Path, texts: list[Path], tokens: int) -> tuple[list[NDArray[np.float64]], float]:
    """Losses of each text's tokens 1 … tokens - 1 through the runtime, and tokens a second.

    The time is that of reading with logits of every token, which costs more than reading alone.
    """
    model, found, seconds, count = load(folder), [], 0.0, 0
    for text in texts:
        ids = model.tokenizer.encode_text(text.read_text(encoding="utf-8", errors="replace"))
        ids = ids[:tokens]
        session, at, kept = model.session(undo=False), 0, []
        began = time.perf_counter()
        for logits in session.logits_all(ids[:-1]):
            kept.append(losses(logits, np.array(ids[at + 1 : at + 1 + len(logits)])))
            at += len(logits)
        seconds, count = seconds + time.perf_counter() - began, count + at
        found.append(np.concatenate(kept))
    return found, count / seconds


def row(name: str, folder: Path, found: list[NDArray[np.float64]],
        truth: list[NDArray[np.float64]], speed: float) -> dict[str, Any]:  # fmt: skip
    """What is printed of one choice."""
    manifest = json.loads((folder / "allmem.json").read_text(encoding="utf-8"))
    ratios = [float(np.exp(a.mean() - b.mean())) for a, b in zip(found, truth, strict=True)]
    # The error of a ratio on a text of this length: losses of one token move together.
    error = [float((a - b).std() / np.sqrt(len(a))) for a, b in zip(found, truth, strict=True)]
    return {
        "export": name,
        "weights": manifest["weights"],
        "keys": manifest["cache"],
        "file_mib": round((folder / WEIGHTS_FILE).stat().st_size / 2**20, 1),
        "perplexity": [round(float(np.exp(one.mean())), 4) for one in found],
        "against_float32": [round(ratio, 5) for ratio in ratios],
        "standard_error": [round(value, 5) for value in error],
        "worst": round(max(ratios), 5),
        "aim": AIMS.get(name),
        "read_tokens_per_second": round(speed, 1),
    }


def main() -> None:
    """Export a checkpoint in each way, read the texts, print what it costs."""
    parser = parser_of("quantization", __doc__)
    parser.add_argument("checkpoint", type=existing_folder, help="what `allmem convert` wrote")
    parser.add_argument("texts", nargs="+", type=existing_file, help="text files")
    parser.add_argument("--tokens", type=tokens, default=8192, help="read of each text")
    parser.add_argument(
        "--weights",
        type=names,
        default=["float16", "int8", "int4"],
        help="stored formats beside float32",
    )
    parser.add_argument(
        "--kv-cache-dtype",
        type=names,
        default=[],
        help="also float32 weights with these keys and values, such as int8",
    )
    parser.add_argument("--matmul-kernel", help="for int8 and int4, as in `allmem export`")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the exports there")
    arguments = parser.parse_args()
    choices = [("float32", "float32", None)]
    choices += [(name, name, None) for name in arguments.weights]
    choices += [(f"float32, {name} keys", "float32", name) for name in arguments.kv_cache_dtype]
    keep = arguments.keep
    truth: list[NDArray[np.float64]] = []
    missed = []
    with nullcontext(str(keep)) if keep else tempfile.TemporaryDirectory() as made:
        for name, storage, keys in choices:
            folder = Path(made) / name.replace(", ", "-").replace(" ", "-")
            if not (folder / WEIGHTS_FILE).is_file():
                own = arguments.matmul_kernel if stored_format(storage).kernel else None
                export(
                    arguments.checkpoint,
                    folder,
                    weights=storage,
                    matmul_kernel=own,
                    kv_cache_dtype=keys,
                    check=False,
                )
            found, speed = read(folder, arguments.texts, arguments.tokens)
            truth = truth or found
            told = row(name, folder, found, truth, speed)
            print(json.dumps(told), flush=True)
            if name in AIMS and told["worst"] > AIMS[name]:
                missed.append(name)
    if missed:
        sys.exit(f"More than allowed is lost by: {', '.join(missed)}.")


if __name__ == "__main__":
    main()
