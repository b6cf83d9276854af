"""One model and text on this runtime and on others, alternately: ``python -m benchmarks.peers``."""
