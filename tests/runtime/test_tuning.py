"""The length of a piece that was measured once is used from then on, where it was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from allmem_runtime import Model, load
from allmem_runtime.errors import StorageError, UsageError
from allmem_runtime.files.user_cache import VARIABLE
from allmem_runtime.tuning import keep_piece, piece_file, tuned_piece


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def opened(folder: Path, threads: int | None = 1) -> Model:
    return load(folder, device="cpu", operators="portable", threads=threads)


def test_without_a_measurement_the_usual_length_is_used(toy: Model, cache: Path) -> None:
    assert tuned_piece(toy.package, 1, "portable") is None
    assert opened(toy.package.folder).piece == toy.manifest.chunk
    assert not cache.exists()


def test_a_kept_length_is_used_for_the_same_model_threads_and_operators(toy: Model) -> None:
    keep_piece(toy.package, 1, "portable", 20, {})
    again = opened(toy.package.folder)
    assert again.piece == 20
    assert again.session().piece == 20
    assert opened(toy.package.folder, threads=2).piece == toy.piece
    assert tuned_piece(toy.package, 1, "native") is None


def test_another_model_has_a_file_of_its_own(toy: Model, other_toy: Model) -> None:
    assert piece_file(toy.package, 1, "portable") != piece_file(other_toy.package, 1, "portable")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"piece": true}', '{"piece": 0}', '{"piece": 1e99}', '{"piece": 49}'],
)
def test_what_cannot_be_a_length_is_not_used(toy: Model, text: str) -> None:
    keep_piece(toy.package, 1, "portable", 20, {})
    piece_file(toy.package, 1, "portable").write_text(text)
    assert opened(toy.package.folder).piece == toy.piece


def test_a_folder_that_cannot_be_made_is_an_error(toy: Model, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(StorageError, match=VARIABLE):
        keep_piece(toy.package, 1, "portable", 20, {})


@pytest.mark.parametrize("tokens", [0, 49, True])
def test_a_session_refuses_impossible_pieces(toy: Model, tokens: int) -> None:
    session = toy.session()
    with pytest.raises(UsageError, match="1 to 48"):
        session.piece = tokens
    assert session.piece == toy.piece


def test_a_fork_reads_in_pieces_of_the_same_length_with_the_same_result(toy: Model) -> None:
    session, ids = toy.session(), [5, 7, 11] * 30
    session.piece = 7
    session.feed(ids)
    fork = session.fork()
    assert fork.piece == 7
    fork.piece = 48
    other = toy.session()
    other.feed(ids)
    for reader in (session, fork):
        np.testing.assert_array_equal(
            reader.feed([3], logits="last"), other.fork().feed([3], logits="last")
        )
