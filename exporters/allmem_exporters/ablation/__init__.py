"""Models without a memory, or with one that never writes: what a memory is worth."""
