"""Settings are checked when they are read; draws and rates are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from allmem_exporters import ConfigError
from allmem_exporters.finetune.schedule import draw_shape, learning_rate_factor
from allmem_exporters.finetune.settings import Settings, read_settings


def test_draws_stay_in_their_ranges_and_follow_the_seed() -> None:
    draws = Settings().draws
    shapes = [draw_shape(draws, 0, step) for step in range(300)]
    assert all(512 <= s.window <= 2048 and 0 <= s.sinks <= 128 for s in shapes)
    assert all(256 <= s.chunk <= min(1024, s.window) for s in shapes)
    assert min(s.window for s in shapes) < 600 and max(s.window for s in shapes) > 1800
    assert shapes == [draw_shape(draws, 0, step) for step in range(300)]
    assert shapes != [draw_shape(draws, 1, step) for step in range(300)]


def test_rate_rises_stays_and_falls() -> None:
    factors = [learning_rate_factor(step, 100, 0.1, 0.2) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[-1] == pytest.approx(0.05)
    assert factors[9:81] == [1.0] * 72
    assert min(factors) > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stpes = 3", "did you mean 'steps'"),
        ("steps = 0", "steps is 0"),
        ("stage = 'all'", "allowed: layers, model"),
        ("[draws]\nwindow = [512]", "two numbers"),
        ("[draws]\nwindow = [2048, 512]", "draws.window"),
        ("draws = 3", "must be a table"),
        ("steps = 1.5", "type int"),
        ("stage = 'layers'\ntext_weight = 8.0", "text_weight is 8.0"),
        ("stage = 'layers'\ncross_entropy = 0.1", "cross_entropy is 0.1"),
        ("[optimizer]\nbetas = [0.9, 1.0]", "optimizer.betas"),
        ("[optimizer]\nclip = 0", "optimizer.clip"),
        ("steps =", "TOML"),
        ("steps = " + "[" * 5000, "TOML: it is nested too deeply"),
        ("cross_entropy = nan", "TOML: nan is not a finite number"),
        ("cross_entropy = " + "9" * 400, "TOML: an integer has more than 64 bits"),
    ],
)
def test_settings_are_checked(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_settings(tmp_path / "s.toml")
