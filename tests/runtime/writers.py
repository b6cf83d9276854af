"""Writers in other processes, stopped in the middle of what they write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITER = """
import sys, time
from pathlib import Path
from allmem_runtime.files.atomic import publish_folder, replace_file
target = Path(sys.argv[2])
def wait():
    print("writing", flush=True)
    time.sleep(600)
def write(file):
    file.write(b"half")
    file.flush()
    wait()
if sys.argv[1] == "file":
    replace_file(target, write)
else:
    with publish_folder(target) as made:
        (made / "part").write_bytes(b"half")
        wait()
"""


@contextmanager
def writing(kind: str, target: Path) -> Iterator[Path]:
    """Another process writes ``target``, a ``file`` or a ``folder``; it is killed at the end.

    Yields:
        The temporary file or folder that it writes to; it stays when the writer is killed.
    """
    before = set(target.parent.iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, kind, str(target)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"writing\n"
            (made,) = set(target.parent.iterdir()) - before
            yield made
        finally:
            process.kill()
