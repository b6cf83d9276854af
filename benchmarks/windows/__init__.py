"""What windows by head, rows of few bits and chosen rows give: ``python -m benchmarks.windows``."""
