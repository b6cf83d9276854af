"""How fast a model reads and writes on this machine, and what it takes: ``allmem bench``."""
