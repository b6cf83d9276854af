"""Settings of a fine-tuning run, read from a TOML file and checked strictly."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from allmem_exporters.errors import ConfigError
from allmem_runtime.strict_toml import read_toml

STAGES = ("layers", "model")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class Draws:
    """Ranges from which each step draws (smallest, largest).

    Args:
        window: tokens the student's attention sees.
        sinks: first tokens it always sees.
        chunk: tokens between two commits of its memory; never more than the window.
    """

    window: tuple[int, int] = (512, 2048)
    sinks: tuple[int, int] = (0, 128)
    chunk: tuple[int, int] = (256, 1024)


@dataclass(frozen=True, slots=True)
class Optimizer:
    """AdamW and its schedule.

    Args:
        learning_rate: of the memory's matrices.
        alpha_learning_rate: of alpha, which starts at 0, where the memory has no effect.
        weight_decay: of the projections; never of alpha, gains, biases and fast weights.
        betas: of the moments.
        clip: bound on the norm of all gradients together; above 0, where nothing would move.
        warmup: fraction of the steps in which the rate rises.
        decay: fraction of the steps in which it falls.
    """

    learning_rate: float = 3e-4
    alpha_learning_rate: float = 3e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    warmup: float = 0.03
    decay: float = 0.2


@dataclass(frozen=True, slots=True)
class Settings:
    """One run of training.

    Args:
        stage: ``layers`` fits each layer's memory to what the window hides from that layer, with
            no way back through the stack; ``model`` minimizes the KL of the whole model.
        steps: optimizer steps.
        batch: sequences of a step.
        length: sequences are cut to this many tokens; 0 leaves them as they are.
        seed: of order, draws and nothing else.
        writes: False trains the twin whose memory never writes, to compare with.
        cross_entropy: weight of the next-token loss beside the KL, stage ``model`` only.
        beyond_window: weight of plain-text positions past the window relative to those before,
            where student and teacher see the same.
        text_weight: weight of a plain text's loss beside a task's. Where an answer depends on what
            the window hides, the KL is some thirty times that of plain text. Stage ``model`` only.
        precision: of the decoder's products: ``auto`` is bfloat16 on CUDA and float32 on a CPU.
        save_every: steps between two savings of the run.
        evaluate_every: steps between two evaluations on held-out sequences.
        evaluate_sequences: how many of those.
        draws: what each step draws.
        optimizer: how parameters move.
    """

    stage: str = "model"
    steps: int = 1000
    batch: int = 1
    length: int = 0
    seed: int = 0
    writes: bool = True
    cross_entropy: float = 0.0
    beyond_window: float = 8.0
    text_weight: float = 1.0
    precision: str = "auto"
    save_every: int = 25
    evaluate_every: int = 50
    evaluate_sequences: int = 8
    draws: Draws = field(default_factory=Draws)
    optimizer: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: names the key, the value and what is allowed.
        """
        _one_of("stage", self.stage, STAGES)
        _one_of("precision", self.precision, PRECISIONS)
        for name in ("steps", "batch", "save_every", "evaluate_every"):
            _within(name, getattr(self, name), 1, 10_000_000)
        for name in ("length", "seed", "evaluate_sequences"):
            _within(name, getattr(self, name), 0, 1_000_000_000)
        for name in ("cross_entropy", "beyond_window", "text_weight"):
            _within(name, getattr(self, name), 0.0, 1000.0)
        if self.stage == "layers":
            for name, without in (("cross_entropy", 0.0), ("text_weight", 1.0)):
                if getattr(self, name) != without:
                    raise ConfigError(
                        f"{name} is {getattr(self, name)!r}, but stage 'layers' has no such loss.",
                        f"Leave {name} out, or use the stage 'model'.",
                    )
        for name, least in (("window", 16), ("sinks", 0), ("chunk", 1)):
            low, high = getattr(self.draws, name)
            _within(f"draws.{name}[0]", low, least, high)
            _within(f"draws.{name}[1]", high, low, 1_000_000)
        for name in ("learning_rate", "alpha_learning_rate", "weight_decay"):
            _within(f"optimizer.{name}", getattr(self.optimizer, name), 0.0, 100.0)
        _within("optimizer.clip", self.optimizer.clip, 1e-6, 1e6)
        for beta in self.optimizer.betas:
            _within("optimizer.betas", beta, 0.0, 0.999999)
        for name in ("warmup", "decay"):
            _within(f"optimizer.{name}", getattr(self.optimizer, name), 0.0, 1.0)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, as ``from_dict`` takes them."""
        return dataclasses.asdict(self)


def read_settings(path: Path, changes: dict[str, Any] | None = None) -> Settings:
    """Settings of a TOML file, with changes from the command line.

    Raises:
        ConfigError: the file cannot be read, or a key or value is not allowed.
    """
    try:
        _, found = read_toml(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from error
    return from_dict({**found, **(changes or {})}, str(path))


def from_dict(values: dict[str, Any], origin: str = "settings") -> Settings:
    """Settings from plain values; unknown keys are refused with a suggestion."""
    settings: Settings = _build(Settings, values, origin)
    return settings


def _build(kind: type, values: dict[str, Any], origin: str) -> Any:
    hints = get_type_hints(kind)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            advice = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(hints)}."
            raise ConfigError(f"{origin}: unknown key {key!r};", advice)
        arguments[key] = _value(hints[key], value, f"{origin}: {key}")
    return kind(**arguments)


def _value(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{name} is {value!r}; it must be a table.")
        return _build(hint, value, name)  # type: ignore[arg-type]
    if hint in (tuple[int, int], tuple[float, float]):
        inner = int if hint == tuple[int, int] else float
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ConfigError(f"{name} is {value!r}; it must be two numbers, [smallest, largest].")
        return tuple(_value(inner, part, name) for part in value)
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint:
        raise ConfigError(f"{name} is {value!r}; it must be of type {hint.__name__}.")
    return value


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; allowed: {', '.join(choices)}.")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; it must be {low:g} to {high:g}.")
