"""What the benchmark commands take: a model, and a text to read."""

from __future__ import annotations

from pathlib import Path

import click

model_argument = click.argument("model", type=click.Path(exists=True, path_type=Path))
text_argument = click.argument("text", type=click.Path(exists=True, dir_okay=False, path_type=Path))
