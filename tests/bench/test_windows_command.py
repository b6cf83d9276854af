"""The command from a checkpoint and data to its table."""

import sys

import numpy as np
import pytest
from tiny import write_tiny_checkpoint

from allmem_exporters.finetune.data import Sequence, ShardWriter
from allmem_exporters.finetune.data.shard_format import tokenizer_digest
from allmem_exporters.heads.head_table import HeadTable
from benchmarks.windows.__main__ import main


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("windows")
    checkpoint = write_tiny_checkpoint(folder / "checkpoint")
    digest = tokenizer_digest(checkpoint)
    random = np.random.default_rng(0)
    with ShardWriter(folder / "data", vocab_size=320, tokenizer=digest) as writer:
        for split in ("train", "heldout"):
            for kind in ("text", "copy", "common"):
                ids = np.tile(random.integers(3, 320, 48), 2).astype(np.int64)
                writer.add(Sequence(ids, np.arange(96) >= 60, kind, split))
    worth = (((0.2, 0.1, 0.1), (0.0, 0.0, 0.0)),) * 2
    table = HeadTable("0" * 64, (16, 32, 64, 96), 4, worth, {"text": 1.0}, {"text": 1})
    table.save(folder / "heads.json")
    return [str(checkpoint), str(folder / "data"), str(folder / "heads.json"), "--window", "32"]


def test_every_way_has_a_line_of_its_own_with_all_kinds(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--rows", "int8", "--rows", "int4", "--key-group", "8", "--chosen", "surprise",
            "--chosen", "learned", "--share", "0.5", "--longest", "48"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["windows", *arguments, *more])
    main()
    lines = capsys.readouterr().out.splitlines()
    header, _, *rows = [line.split(" | ") for line in lines if line.startswith("|")]
    assert header == ["| rows", "bytes", "text", "copy", "over kinds |"]
    assert [row[0] for row in rows] == [
        "| 16 everywhere", "| 32 everywhere", "| 32 everywhere, int8, fewer bytes",
        "| 32 everywhere, int4, fewer bytes", "| 32 by head", "| 32 by head, int8",
        "| 32 by head, int4", "| 32 by head, float16, surprise 0.5",
        "| 32 by head, float16, learned 0.5", "| 32 by head, int8, surprise 0.5",
        "| 32 by head, int8, learned 0.5",
    ]  # fmt: skip
    for row in rows:
        text, copy, mean = (float(cell.split(" / ")[0]) for cell in row[2:])
        assert mean == pytest.approx((text + copy) / 2, abs=1e-3)
        assert copy >= 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--recent", "40"], "--recent 64"),
        (["--chosen", "surprise", "--share", "1.5"], "share of 1.5"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    more: list[str], says: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["windows", *arguments, *more])
    with pytest.raises(SystemExit, match=says):
        main()
