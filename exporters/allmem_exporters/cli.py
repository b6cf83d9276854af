"""The exporters' commands, for the umbrella command `allmem`."""

from allmem_exporters.commands.convert import convert
from allmem_exporters.commands.export import export

__all__ = ["convert", "export"]
