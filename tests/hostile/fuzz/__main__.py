"""Fuzzes every format for some minutes, or reads one finding again.

python tests/hostile/fuzz --minutes 30
python tests/hostile/fuzz --replay build/fuzz/session/findings/0123456789ab
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:1] = [str(ROOT / "tests"), str(ROOT), str(ROOT / "tests" / "exporters")]

from hostile.fuzz.campaign import campaign, replay  # noqa: E402
from hostile.fuzz.table import TABLE  # noqa: E402


def main() -> int:
    """The exit code: 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--format", action="append", choices=list(TABLE), help="only this one")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz")
    parser.add_argument("--seed", default="", help="any text; another one makes other examples")
    parser.add_argument("--replay", type=Path, metavar="FINDING")
    given = parser.parse_args()
    if given.replay:
        return replay(given.replay.resolve())
    return campaign(given.folder.resolve(), given.format or list(TABLE), given.minutes, given.seed)


if __name__ == "__main__":
    sys.exit(main())
