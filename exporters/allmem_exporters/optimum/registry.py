"""Registers AllMem models with optimum: `TasksManager` can export the type `allmem`."""

from __future__ import annotations

from typing import Any

import torch
from optimum.exporters.base import ExporterConfig
from optimum.exporters.tasks import TasksManager
from optimum.utils import DummyInputGenerator, NormalizedTextConfig

from allmem_exporters.model.config import AllMemConfig
from allmem_exporters.model.state import state_spec
from allmem_runtime.spec import (
    INPUT_IDS,
    LOGIT_INDEX,
    LOGITS,
    POSITION,
    past_name,
    present_name,
)

register_for_onnx = TasksManager.create_register("onnx", overwrite_existing=True)


class StepInputGenerator(DummyInputGenerator):
    """Inputs of one step: a few tokens at the start of a text, and a blank state."""

    SUPPORTED_INPUT_NAMES = (INPUT_IDS, POSITION, LOGIT_INDEX, "past.")

    def __init__(self, task: str, normalized_config: NormalizedTextConfig, **_: Any) -> None:
        self.task = task
        self.config: AllMemConfig = normalized_config.config

    def generate(
        self,
        input_name: str,
        framework: str = "pt",
        int_dtype: str = "int64",
        float_dtype: str = "fp32",
    ) -> torch.Tensor:
        """One input by name, as a PyTorch tensor of the type the graph wants.

        Raises:
            ValueError: another framework than PyTorch is asked for.
        """
        if framework != "pt":
            raise ValueError(f"AllMem models are exported from PyTorch, not from {framework!r}")
        if input_name == INPUT_IDS:
            return torch.zeros(1, min(3, self.config.chunk), dtype=torch.int64)
        if input_name == POSITION:
            return torch.zeros(1, dtype=torch.int64)
        if input_name == LOGIT_INDEX:
            return torch.zeros(1, dtype=torch.int64)
        for layer, tensor in state_spec(self.config):
            if past_name(layer, tensor.name) == input_name:
                return torch.zeros(tensor.shape, dtype=getattr(torch, tensor.element))
        raise ValueError(f"the step graph has no input {input_name!r}")


@register_for_onnx("allmem", "text-generation", library_name="transformers")
class AllMemOnnxConfig(ExporterConfig):
    """Names and dynamic axes of the step graph, as optimum describes exports."""

    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig
    DUMMY_INPUT_GENERATOR_CLASSES = (StepInputGenerator,)
    ATOL_FOR_VALIDATION = 1e-4

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Input names and their dynamic axes; the state has none."""
        names = {INPUT_IDS: {1: "time"}, POSITION: {}, LOGIT_INDEX: {0: "rows"}}
        return {**names, **{past_name(at, t.name): {} for at, t in state_spec(self._config)}}

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Output names and their dynamic axes."""
        names = {LOGITS: {1: "rows"}}
        return {**names, **{present_name(at, t.name): {} for at, t in state_spec(self._config)}}
