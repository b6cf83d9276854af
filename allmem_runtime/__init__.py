"""Read documents without end in constant memory: models, sessions and their errors."""

from allmem_runtime.errors import (
    AllMemError,
    DeviceError,
    ModelFileError,
    OperatorLibraryError,
    SessionFileError,
    SessionStateError,
    SourceError,
    StorageError,
    UsageError,
)
from allmem_runtime.generation.sampling import Sampling
from allmem_runtime.model import Model, load
from allmem_runtime.session.session import Session
from allmem_runtime.text.reading import Progress

__version__ = "0.1.0"

__all__ = [
    "AllMemError",
    "DeviceError",
    "Model",
    "ModelFileError",
    "OperatorLibraryError",
    "Progress",
    "Sampling",
    "Session",
    "SessionFileError",
    "SessionStateError",
    "SourceError",
    "StorageError",
    "UsageError",
    "load",
]
