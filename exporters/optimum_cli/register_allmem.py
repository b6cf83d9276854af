"""Adds `optimum-cli export allmem`; installed into optimum's plug-in folder, where it is found."""

from argparse import ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand


class AllMemExportCommand(BaseOptimumCLICommand):
    """Export an AllMem checkpoint, or convert a pretrained decoder and export it."""

    COMMAND = CommandInfo(name="allmem", help="Export an AllMem model to ONNX for allmem-run.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments."""
        from allmem_exporters.optimum.arguments import add_arguments

        add_arguments(parser)

    def run(self) -> None:
        """Run the export; an error ends the program with its message."""
        from allmem_exporters.optimum.command import main

        main(self.args)


REGISTER_COMMANDS = [(AllMemExportCommand, ExportCommand)]
