"""Which bands `benchmarks.windows` opens for windows by head."""

from types import SimpleNamespace

from allmem_exporters.heads.head_table import HeadTable
from benchmarks.windows import _gates


def test_a_window_as_long_as_the_model_was_trained_for_opens_the_last_band() -> None:
    worth = (((0.5, 0.25, 0.125),) * 2,)
    table = HeadTable("0" * 64, (64, 128, 256, 512), 16, worth, {"text": 1.0}, {"text": 1})
    config = SimpleNamespace(max_position_embeddings=512)

    gates = _gates(table, [[496, 256]], config)  # type: ignore[arg-type]

    assert gates.tolist() == [[[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]]
