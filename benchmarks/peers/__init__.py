"""One model and text on this runtime and on others, in turns: ``python -m benchmarks.peers``."""
