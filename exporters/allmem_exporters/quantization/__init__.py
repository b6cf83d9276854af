"""How weights are stored: floating point, or integers in blocks."""
