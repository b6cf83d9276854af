"""One document beside another form of it: the same words, in the same order.

    python -m benchmarks.documents debian-reference.en.pdf debian-reference.en.txt.gz

Both are read as `allmem-run` reads them; several files of one form are read one after the other
(`--beside ch01.en.html ch02.en.html`). Words are those of two small Latin letters or more. Told are
how many of the one's words stand in the other without their order, in its order, and in its order
or in a passage of five words or more that stands elsewhere, as do tables and their titles that a
printer put where there was room.
"""

from __future__ import annotations

import io
import re
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path

from allmem_runtime.documents.opening import open_any
from benchmarks.arguments import existing_file, parser_of, run
from benchmarks.documents.order import common, moved

_WORD = re.compile(r"[a-z]{2,}")


def main() -> None:
    parser = parser_of("documents", __doc__)
    parser.add_argument("document", type=existing_file)
    parser.add_argument("beside", type=existing_file, nargs="+", help="its other form")
    run(_compare, parser.parse_args())


def _compare(options: Namespace) -> None:
    one, other = words_of(options.document), []
    for path in options.beside:
        other += words_of(path)
    same = (Counter(one) & Counter(other)).total()
    in_order, left_of_one, left_of_other = common(one, other)
    elsewhere = moved(left_of_one, left_of_other)
    print(f"{'':34}{'words':>10}{'any order':>11}{'in order':>10}{'or moved':>10}")
    for name, count in ((options.document.name, len(one)), (options.beside[0].name, len(other))):
        shares = (same / count, in_order / count, (in_order + elsewhere) / count)
        print(
            f"{name[:33]:34}{count:>10,}"
            + f"{shares[0]:>11.2%}{shares[1]:>10.2%}{shares[2]:>10.2%}"
        )


def words_of(path: Path) -> list[str]:
    """The words of a file; how long it takes to read it is told."""
    began = time.monotonic()
    source = open_any(str(path), io.BytesIO(), "", print)
    text = b"".join(source.pieces()).decode()
    print(f"{path.name}: {len(text):,} characters in {time.monotonic() - began:.1f} s", flush=True)
    return _WORD.findall(text.replace("\xad", "").lower())


if __name__ == "__main__":
    main()
