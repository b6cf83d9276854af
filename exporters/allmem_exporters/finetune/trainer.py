"""The training loop. A step is a function of the parameters, the moments and its number alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from allmem_exporters.errors import TrainingError
from allmem_exporters.finetune.data import Sequence, Shards
from allmem_exporters.finetune.evaluate import evaluate
from allmem_exporters.finetune.interrupts import StopRequest
from allmem_exporters.finetune.losses import Loss, layer_losses, model_loss
from allmem_exporters.finetune.metrics import MetricsFile
from allmem_exporters.finetune.parameters import make_optimizer, prepare
from allmem_exporters.finetune.passes import Passes
from allmem_exporters.finetune.resume import RunFile, Standing
from allmem_exporters.finetune.schedule import draw_shape, learning_rate_factor, order
from allmem_exporters.finetune.settings import Settings
from allmem_exporters.model.memory_layer import memory_parameters
from allmem_exporters.model.modeling import AllMemForCausalLM

MOST_SKIPPED = 20
"""Steps in a row that may be skipped; a run that skips more will not recover."""

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did, for whoever shows it.

    Attributes:
        number: counted from 1.
        steps: of the whole run.
        loss: mean over the batch.
        tokens: read since the run began.
        seconds: of this step.
        skipped: steps left out so far because something was not finite.
    """

    number: int
    steps: int
    loss: float
    tokens: int
    seconds: float
    skipped: int


class Trainer:
    """One run: a model whose memories learn, its optimizer and where it stands.

    Args:
        model: a converted checkpoint, or one trained before; changed in place.
        train: sequences to learn from.
        heldout: sequences to judge on; may be empty.
        settings: of the run.
        run: where the run is kept.
        metrics: where its figures go.
    """

    def __init__(
        self,
        model: AllMemForCausalLM,
        train: Shards,
        heldout: Shards,
        settings: Settings,
        run: RunFile,
        metrics: MetricsFile,
    ) -> None:
        self.settings, self.run_file, self.metrics = settings, run, metrics
        self.train, self.heldout = train, heldout
        wanted = precision_of(settings, next(model.parameters()).device.type)
        prepare(model, PRECISIONS[wanted], settings.writes)
        self.model = model
        self.passes = Passes(model)
        self.optimizer = make_optimizer(model, settings.optimizer)
        self._skipped_in_a_row = 0
        self.standing = run.load(model, self.optimizer) or Standing()
        metrics.keep_until(self.standing.step)

    def run(
        self,
        show: Callable[[Step], None] = lambda step: None,
        report: Callable[[str], None] = lambda line: None,
    ) -> dict[str, Any]:
        """Train to the end.

        Args:
            show: called after each step.
            report: called with a line of text before each held-out sequence.

        Returns:
            The last evaluation.

        Raises:
            KeyboardInterrupt: somebody asked to stop; the step or the held-out sequence was
                finished and the run kept.
            TrainingError: ``MOST_SKIPPED`` steps in a row were not finite; the run is as it was
                saved last.
        """
        settings = self.settings
        with StopRequest() as stop:
            while self.standing.step < settings.steps:
                if self.standing.step % settings.evaluate_every == 0 and not self._judged():
                    self._evaluate(stop, report)
                show(self._step())
                # Saved before it is judged: neither steps nor figures are lost in between.
                ended = self.standing.step == settings.steps
                if stop.asked or ended or self.standing.step % settings.save_every == 0:
                    self.save()
                if stop.asked:
                    raise KeyboardInterrupt
            return self._evaluate(stop, report)

    def save(self) -> None:
        """Keep the run, so that it goes on from here."""
        self.run_file.save(self.model, self.optimizer, self.standing)

    def _sequences(self) -> list[Sequence]:
        first = self.standing.step * self.settings.batch
        chosen = []
        for number in range(first, first + self.settings.batch):
            epoch, place = divmod(number, len(self.train))
            sequence = self.train[order(len(self.train), self.settings.seed, epoch)[place]]
            chosen.append(cut(sequence, self.settings.length))
        return chosen

    def _loss(self, sequence: Sequence, scale: float) -> Loss:
        settings = self.settings
        shape = draw_shape(settings.draws, settings.seed, self.standing.step)
        if settings.stage == "layers":
            return layer_losses(self.passes, sequence, shape, scale)
        if sequence.kind == "text":
            scale *= settings.text_weight
        return model_loss(
            self.passes, sequence, shape, settings.beyond_window, settings.cross_entropy, scale
        )

    def _step(self) -> Step:
        began, settings, standing = time.perf_counter(), self.settings, self.standing
        self.optimizer.zero_grad()
        sequences = self._sequences()
        losses = [self._loss(sequence, 1 / len(sequences)) for sequence in sequences]
        value = sum(loss.value for loss in losses) / len(losses)
        parameters = [p for p in memory_parameters(self.model).values() if p.grad is not None]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.optimizer.clip))
        factor = learning_rate_factor(
            standing.step, settings.steps, settings.optimizer.warmup, settings.optimizer.decay
        )
        skipped = not (math.isfinite(value) and math.isfinite(norm))
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if skipped else 0
        if self._skipped_in_a_row > MOST_SKIPPED:
            raise TrainingError(
                f"{MOST_SKIPPED} steps in a row up to step {standing.step} gave no finite loss.",
                "Lower optimizer.learning_rate, and begin anew from an earlier adapter.",
            )
        if not skipped:
            for group in self.optimizer.param_groups:
                group["lr"] = factor * group["base"]
            self.optimizer.step()
        tokens = sum(len(sequence) for sequence in sequences)
        self.standing = Standing(
            standing.step + 1, standing.tokens + tokens, standing.skipped + skipped
        )
        seconds = time.perf_counter() - began
        self.metrics.add(
            "step", self.standing.step,
            loss=value, gradient_norm=norm, rate_factor=factor, tokens=self.standing.tokens,
            counted=sum(loss.tokens for loss in losses), seconds=seconds,
            skipped=self.standing.skipped, kind=",".join(s.kind for s in sequences),
        )  # fmt: skip
        return Step(
            self.standing.step, settings.steps, value, self.standing.tokens, seconds,
            self.standing.skipped,
        )  # fmt: skip

    def _evaluate(self, stop: StopRequest, report: Callable[[str], None]) -> dict[str, Any]:
        count = min(self.settings.evaluate_sequences, len(self.heldout))
        # Spread over the folder, which holds one kind after the other.
        chosen = [number * len(self.heldout) // count for number in range(count)]
        sequences = [cut(self.heldout[number], self.settings.length) for number in chosen]
        if not sequences:
            return {}

        def begin(number: int) -> None:
            if stop.asked:
                self.save()
                raise KeyboardInterrupt
            report(f"judging on held-out sequence {number + 1} of {count}")

        found = evaluate(self.passes, sequences, self.settings, begin)
        if not self._judged():
            self.metrics.add("heldout", self.standing.step, **found)
        return found

    def _judged(self) -> bool:
        return self.metrics.has("heldout", self.standing.step)


def precision_of(settings: Settings, device: str) -> str:
    """Type of the decoder's products on ``cpu`` or ``cuda``."""
    if settings.precision == "auto":
        return "bfloat16" if device == "cuda" else "float32"
    return settings.precision


def cut(sequence: Sequence, length: int) -> Sequence:
    """The first ``length`` tokens, or all if it is 0."""
    if not length or len(sequence) <= length:
        return sequence
    return Sequence(
        sequence.ids[:length], sequence.counts[:length], sequence.kind, sequence.split,
        sequence.source,
    )  # fmt: skip
