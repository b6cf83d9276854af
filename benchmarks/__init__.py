"""Measurements that anyone can repeat with one command each; see docs/speed.md."""

import os

# As allmem_runtime does, which need not be there: no telemetry of ONNX Runtime.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
