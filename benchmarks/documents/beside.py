"""The words that are recovered from a folder of documents, beside those that markitdown recovers.

    python tests/odd_files.py build/odd
    python -m benchmarks.documents.beside build/odd --markitdown OTHER/bin/python

Beside each document NAME the folder has its words in NAME.words. Told are, for each document, the
share of them that stand in the text in their order, how many words more the text has, and seconds;
with --markitdown, the same of markitdown, in one process, as another Python has it
(`pip install 'markitdown[pdf,docx]'`). Marks alone are no words.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import time
from argparse import Namespace
from pathlib import Path

from allmem_runtime.documents.opening import open_any
from allmem_runtime.errors import AllMemError, UsageError
from benchmarks.arguments import existing, parser_of, run
from benchmarks.documents.order import common

_WORD = re.compile(r"\w+")
_MARKITDOWN = """
import json, sys, time
from markitdown import MarkItDown
reader = MarkItDown()
for path in sys.argv[1:]:
    began = time.monotonic()
    try:
        text = reader.convert(path).text_content
    except Exception as error:
        text = ""
    print(json.dumps([text, time.monotonic() - began]))
"""


def main() -> None:
    parser = parser_of("documents.beside", __doc__)
    parser.add_argument("folder", type=existing)
    parser.add_argument("--markitdown", type=existing, help="a Python that has it")
    run(_compare, parser.parse_args())


def _compare(options: Namespace) -> None:
    paths = sorted(
        path for path in options.folder.iterdir() if path.with_name(f"{path.name}.words").exists()
    )
    if not paths:
        raise UsageError(f"{options.folder} has no NAME.words.", "Write some as told above.")
    systems = {"allmem": [_ours(path) for path in paths]}
    if options.markitdown:
        systems["markitdown"] = _theirs(options.markitdown, paths)
    print(f"{'':30}" + "".join(f"{name:>14}{'more':>6}{'s':>7}" for name in systems))
    totals = dict.fromkeys(systems, 0.0)
    for at, path in enumerate(paths):
        wanted = _WORD.findall(path.with_name(f"{path.name}.words").read_text(encoding="utf-8"))
        row = f"{path.name[:29]:30}"
        for name, read in systems.items():
            text, seconds = read[at]
            found = _WORD.findall(text)
            length = common(wanted, found)[0]
            totals[name] += length / len(wanted)
            row += f"{length / len(wanted):>14.0%}{len(found) - length:>6}{seconds:>7.2f}"
        print(row)
    print(
        f"{'mean':30}"
        + "".join(f"{total / len(paths):>14.1%}{'':>13}" for total in totals.values())
    )


def _ours(path: Path) -> tuple[str, float]:
    began = time.monotonic()
    try:
        text = b"".join(open_any(str(path), io.BytesIO(), "", lambda said: None).pieces()).decode()
    except AllMemError:
        text = ""
    return text, time.monotonic() - began


def _theirs(python: Path, paths: list[Path]) -> list[tuple[str, float]]:
    command = [str(python), "-c", _MARKITDOWN, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


if __name__ == "__main__":
    main()
