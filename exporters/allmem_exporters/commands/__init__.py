"""The commands that need PyTorch: one file each."""

import os
import tempfile

# PyTorch's compiler, which transformers and tracing load and nothing here uses, makes a folder for
# its cache when it is imported. In a command's process that folder goes when the process does.
_COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"
if _COMPILER_CACHE not in os.environ:
    _folder = tempfile.TemporaryDirectory(prefix="allmem-")
    os.environ[_COMPILER_CACHE] = _folder.name

# It also wants the user's name, for which the system may ask a name service over a socket.
if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
    os.environ["LOGNAME"] = "nobody"
