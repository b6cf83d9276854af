"""The exporters' commands, for the umbrella command `allmem`."""

from allmem_exporters.commands.convert import convert
from allmem_exporters.commands.data import data
from allmem_exporters.commands.export import export
from allmem_exporters.commands.finetune import finetune

__all__ = ["convert", "data", "export", "finetune"]
