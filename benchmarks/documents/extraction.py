"""How long documents take to become text, and how much memory that takes beside a model.

    python -m benchmarks.documents.extraction debian-reference.en.pdf --pages 5000

With --pages, a PDF is repeated until it has so many, in a file of its own under --folder. Told are
seconds, megabytes of text, the most memory that the process had which read the document, and by how
much this one grew, which is what a command has beside its model.
"""

from __future__ import annotations

import threading
import time
from argparse import Namespace
from pathlib import Path

from allmem_runtime.documents.extraction import DocumentText, extract
from allmem_runtime.documents.opening import kind_at
from allmem_runtime.errors import UsageError
from benchmarks.arguments import existing_file, parser_of, run

_LOOK_SECONDS = 0.05


def main() -> None:
    parser = parser_of("documents.extraction", __doc__)
    parser.add_argument("documents", type=existing_file, nargs="+")
    parser.add_argument("--pages", type=int, help="repeat each PDF until it has so many")
    parser.add_argument("--folder", type=Path, default=Path("build"), help="for such files")
    run(_measure, parser.parse_args())


def _measure(options: Namespace) -> None:
    print(
        f"{'':34}{'pages':>7}{'MB':>8}{'seconds':>9}{'MB of text':>12}"
        f"{'MiB child':>11}{'MiB here':>10}"
    )
    for path in options.documents:
        if options.pages:
            path = repeated(path, options.pages, options.folder)
        kind = kind_at(str(path))
        if kind is None:
            raise UsageError(f"{path} is plain text.", "Name a document.")
        before, began = _mebibytes("self", "VmRSS"), time.monotonic()
        with Child() as child:
            text = extract(path, kind, path.name)
        seconds, grown = time.monotonic() - began, _mebibytes("self", "VmRSS") - before
        print(
            f"{path.name[:33]:34}{_pages(text):>7,}{path.stat().st_size / 1e6:>8.1f}{seconds:>9.1f}"
            f"{text.size / 1e6:>12.1f}{child.most:>11.0f}{grown:>10.1f}",
            flush=True,
        )


class Child:
    """Looks at the child process while the body runs.

    Attributes:
        most: MiB of memory that it had.
    """

    def __init__(self) -> None:
        self.most = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Child:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(_LOOK_SECONDS):
            for listed in Path("/proc/self/task").glob("*/children"):
                for number in listed.read_text().split():
                    self.most = max(self.most, _mebibytes(number, "VmHWM"))


def repeated(path: Path, pages: int, folder: Path) -> Path:
    """A PDF of so many pages, made of another's."""
    import pypdfium2

    made = folder / f"{path.stem}-{pages}.pdf"
    folder.mkdir(parents=True, exist_ok=True)
    source, target = pypdfium2.PdfDocument(path), pypdfium2.PdfDocument.new()
    while left := pages - len(target):
        target.import_pages(source, list(range(min(left, len(source)))))
    target.save(made)
    return made


def _pages(text: DocumentText) -> int:
    return len({mark.page for mark in text.within(0, text.size) if mark.page})


def _mebibytes(process: str, field: str) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(field)), 0.0)


if __name__ == "__main__":
    main()
