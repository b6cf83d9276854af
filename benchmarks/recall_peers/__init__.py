"""RULER's prompts put to llama.cpp beside us: ``python -m benchmarks.recall_peers``."""
