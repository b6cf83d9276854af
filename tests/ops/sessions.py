"""Options of ONNX Runtime sessions that live beside many others."""

from __future__ import annotations

import onnxruntime


def asleep(threads: int = 2) -> onnxruntime.SessionOptions:
    """Threads that wait awake would take the cores from other sessions and other tests."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures are raised, and expected in some tests
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
