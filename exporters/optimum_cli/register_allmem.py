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
        parser.add_argument(
            "--model",
            required=True,
            help="AllMem checkpoint, or a Llama, Qwen2 or Qwen3 model: folder, hub id or GGUF.",
        )
        parser.add_argument(
            "--weights",
            choices=["float32", "float16", "int8", "int4"],
            help="How matrices are stored; float32, or the activations' type, by default.",
        )
        parser.add_argument(
            "--products",
            choices=["allmem", "onnxruntime"],
            help="Who multiplies int8 and int4: our own operator, for CPUs, by default; or "
            "MatMulNBits of ONNX Runtime, for GPUs and for programs without our library.",
        )
        parser.add_argument(
            "--activations",
            choices=["float32", "float16"],
            default="float32",
            help="Type of everything between tokens and logits: float16 for GPUs.",
        )
        parser.add_argument(
            "--kv",
            choices=["float16", "float32", "int8"],
            help="How keys and values are kept; by default as the checkpoint says.",
        )
        parser.add_argument("--no-check", action="store_true", help="Skip the check.")
        parser.add_argument("--force", action="store_true", help="Replace OUTPUT whatever it is.")
        parser.add_argument("output", help="Folder to write.")

    def run(self) -> None:
        """Run the export; an error ends the program with its message."""
        import sys

        from allmem_exporters.optimum.command import run
        from allmem_runtime.errors import AllMemError

        try:
            run(
                self.args.model,
                self.args.output,
                weights=self.args.weights,
                products=self.args.products,
                activations=self.args.activations,
                kv=self.args.kv,
                check=not self.args.no_check,
                force=self.args.force,
                report=lambda line: print(line, file=sys.stderr),
            )
        except AllMemError as error:
            print(f"optimum-cli export allmem: error: {error}", file=sys.stderr)
            sys.exit(error.exit_code)


REGISTER_COMMANDS = [(AllMemExportCommand, ExportCommand)]
