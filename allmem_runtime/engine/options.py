"""EngineOptions: where and how a model runs; each is declared here once, with its help.

``load`` takes them as keywords, commands that load a model as flags.
"""

from __future__ import annotations

from dataclasses import dataclass

from allmem_runtime.engine.memory_limit import device_bytes
from allmem_runtime.options import option


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where and how a model runs.

    Without ``threads`` the environment variable ``ALLMEM_THREADS`` counts, or else the physical
    cores that the process may use. Where CUDA graphs cannot be used, ``model.engine.notices`` says
    why. The state of each session comes on top of ``device_memory``, which is a number of bytes
    or a text. Where prepared weights are used, ``model.engine.prepared`` says where they are.

    Raises:
        UsageError: the device memory is no size.
    """

    device: str = option("auto", "auto, cpu, cuda or cuda:N.")
    operators: str = option("auto", "auto, native, portable, or the path of a library.")
    cuda_graph: bool | None = option(
        None, "Replay the step of one token as a CUDA graph.", default_note="on CUDA"
    )
    device_memory: str | int | None = option(
        None,
        "Most device memory for weights and work, such as 4GiB; states come on top.",
        metavar="SIZE",
    )
    threads: int | None = option(None, "CPU threads of a step; the default suits the machine.")
    prepared: bool = option(
        True,
        "On the CPU, map the weights that `allmem prepare` wrote for this CPU, if there are any.",
        on_command_line=False,
    )

    def __post_init__(self) -> None:
        """Refuse a limit that is no size before anything is loaded."""
        _ = self.memory_limit

    @property
    def memory_limit(self) -> int | None:
        """Bytes of device memory for weights and work; None is no limit."""
        return None if self.device_memory is None else device_bytes(self.device_memory)
