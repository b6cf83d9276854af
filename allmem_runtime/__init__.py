"""Read documents without end in constant memory: models, sessions and their errors."""

import os
from typing import TYPE_CHECKING

from allmem_runtime.errors import (
    AllMemError,
    DeviceError,
    ModelFileError,
    OperatorLibraryError,
    PassagesError,
    SessionFileError,
    SessionStateError,
    SourceError,
    StorageError,
    UsageError,
)
from allmem_runtime.lazy_names import lazy_names

# ONNX Runtime tells its vendor of its use, and keeps a device id in the user's cache folder, unless
# it is told not to before it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from allmem_runtime.engine.options import EngineOptions
    from allmem_runtime.generation.sampling import Sampling
    from allmem_runtime.model import Model, load
    from allmem_runtime.session.answer import Answer
    from allmem_runtime.session.kept_text import Passage
    from allmem_runtime.session.session import Session
    from allmem_runtime.text.places import TextPlace
    from allmem_runtime.text.reading import Progress

__version__ = "0.1.0"

__all__ = [
    "AllMemError",
    "Answer",
    "DeviceError",
    "EngineOptions",
    "Model",
    "ModelFileError",
    "OperatorLibraryError",
    "Passage",
    "PassagesError",
    "Progress",
    "Sampling",
    "Session",
    "SessionFileError",
    "SessionStateError",
    "SourceError",
    "StorageError",
    "TextPlace",
    "UsageError",
    "load",
]

# Imported on first use: a command that opens no model need not wait for ONNX Runtime and NumPy.
_LATER = {
    "Answer": "allmem_runtime.session.answer",
    "EngineOptions": "allmem_runtime.engine.options",
    "Model": "allmem_runtime.model",
    "Passage": "allmem_runtime.session.kept_text",
    "Progress": "allmem_runtime.text.reading",
    "Sampling": "allmem_runtime.generation.sampling",
    "Session": "allmem_runtime.session.session",
    "TextPlace": "allmem_runtime.text.places",
    "load": "allmem_runtime.model",
}

__getattr__, __dir__ = lazy_names(globals(), _LATER)
