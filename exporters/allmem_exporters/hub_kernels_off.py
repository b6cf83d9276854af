"""Keeps transformers from fetching kernels while it builds a model from somebody's configuration.

Where the package ``kernels`` is installed, the code of some decoders asks the hub for native code
as soon as it is imported or built (falcon, gpt_neo, rwkv), whatever their configuration says.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from transformers.integrations import hub_kernels
from transformers.utils import import_utils


def _refuse(*given: Any, **named: Any) -> Any:
    raise ImportError("kernels of the hub are not loaded here")


def _without(*given: Any, **named: Any) -> bool:
    return False


_LOCK = threading.RLock()
_REPLACED: tuple[tuple[ModuleType, str, Callable[..., Any]], ...] = (
    (hub_kernels, "get_kernel", _refuse),
    (import_utils, "is_flash_attn_kernel_fallback_available", _without),
)
"""Names by which transformers comes to a kernel; versions may lack one."""


@contextmanager
def without_hub_kernels() -> Iterator[None]:
    """Meanwhile transformers loads no kernel, be it on the hub or in its cache."""
    with _LOCK:
        known = [(module, name, getattr(module, name, None)) for module, name, _ in _REPLACED]
        try:
            for module, name, other in _REPLACED:
                if hasattr(module, name):
                    setattr(module, name, other)
            yield
        finally:
            for module, name, own in known:
                if own is not None:
                    setattr(module, name, own)
