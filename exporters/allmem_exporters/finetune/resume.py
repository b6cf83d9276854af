"""Saves and loads a training run: parameters, moments and the step, to resume after a kill."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from allmem_exporters.errors import DataError
from allmem_exporters.model.memory_layer import memory_parameters
from allmem_exporters.model.modeling import AllMemForCausalLM
from allmem_exporters.tensor_file import write_tensors
from allmem_runtime.files.atomic import PRIVATE
from allmem_runtime.strict_json import parse_object

_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Standing:
    """Steps done, tokens read, steps skipped because something was not finite."""

    step: int = 0
    tokens: int = 0
    skipped: int = 0


class RunFile:
    """The file of a run. It is replaced as a whole or not at all.

    Args:
        path: of the file.
        identity: what the run is made of (settings, data, model); a run goes on only with the same.
    """

    def __init__(self, path: Path, identity: dict[str, object]) -> None:
        self.path, self.identity = path, json.loads(json.dumps(identity))

    def save(
        self, model: AllMemForCausalLM, optimizer: torch.optim.AdamW, standing: Standing
    ) -> None:
        """Write parameters, moments and standing.

        Raises:
            StorageError: there is no room, or the folder cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for name, parameter in memory_parameters(model).items():
            tensors[name] = parameter.detach().cpu().contiguous()
            for moment in _MOMENTS:
                found = optimizer.state.get(parameter, {}).get(moment)
                if found is not None:
                    tensors[f"{moment}/{name}"] = found.cpu().contiguous()
            if parameter in optimizer.state:
                tensors[f"step/{name}"] = optimizer.state[parameter]["step"].reshape(1).cpu()
        # One entry: safetensors writes several in any order, and equal runs are equal files.
        text = {"run": json.dumps({"identity": self.identity, "standing": asdict(standing)})}
        write_tensors(self.path, tensors, text, mode=PRIVATE)

    def load(self, model: AllMemForCausalLM, optimizer: torch.optim.AdamW) -> Standing | None:
        """Take the run up where it was saved.

        Returns:
            Where it stands, or None if there is no file.

        Raises:
            DataError: the file is damaged, or of a run made of other things; names what differs.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                kept = parse_object((file.metadata() or {})["run"])
                self._check(kept["identity"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                standing = Standing(**kept["standing"])
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DataError(
                f"{self.path} is damaged ({error}).", "Remove it to start the run anew."
            ) from error
        for name, parameter in memory_parameters(model).items():
            if name not in tensors or tensors[name].shape != parameter.shape:
                raise DataError(
                    f"{self.path} does not fit the model: {name}.", "Name another folder."
                )
            with torch.no_grad():
                parameter.copy_(tensors[name])
            if f"step/{name}" in tensors:
                optimizer.state[parameter] = {
                    "step": tensors[f"step/{name}"].reshape(()),
                    **{m: tensors[f"{m}/{name}"].to(parameter.device) for m in _MOMENTS},
                }
        return standing

    def _check(self, found: dict[str, object]) -> None:
        for key, value in sorted(found.items()):
            if value != self.identity.get(key):
                raise DataError(
                    f"{self.path} is a run with {key} {value!r}, not {self.identity.get(key)!r}.",
                    "Go on with what it was begun with, or name another folder.",
                )
