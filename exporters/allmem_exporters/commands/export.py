"""The command `allmem export`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--weights",
    type=click.Choice(["float32", "float16", "int8", "int4"]),
    help="How matrices are stored. int8 and int4 make the file smaller and a CPU faster, float16 "
    "only the file smaller.  [default: float32, or the activations' type]",
)
@click.option(
    "--products",
    type=click.Choice(["allmem", "onnxruntime"]),
    help="Who multiplies int8 and int4: allmem, our own operator, the fastest on x86 CPUs and for "
    "CPUs only; onnxruntime, its MatMulNBits, for GPUs, for other CPUs, and for programs without "
    "our library.  [default: allmem]",
)
@click.option(
    "--activations",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Type of everything between tokens and logits: float16 for GPUs.",
)
@click.option(
    "--kv",
    type=click.Choice(["float16", "float32", "int8"]),
    help="How keys and values are kept; by default the checkpoint's, usually float16. int8, with "
    "a scale for each head of each token, takes half of float16, on the CPU only.",
)
@click.option("--window", type=int, help="Tokens the attention sees.  [default: checkpoint's]")
@click.option("--sinks", type=int, help="First tokens that stay visible.")
@click.option("--chunk", type=int, help="Tokens between commits.")
@click.option(
    "--memory",
    type=click.Choice(["enabled", "frozen", "disabled", "on", "silent"]),
    default="enabled",
    show_default=True,
    help="frozen: read, never written. disabled: it has no effect. To compare with.",
)
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Compare the graph with PyTorch: one pass and random pieces, library and bodies.",
)
@click.option("--check-tokens", type=click.IntRange(min=1), help="Length of the compared text.")
@click.option("--force", is_flag=True, help="Replace OUT even if it holds something else.")
def export(
    checkpoint: Path,
    out: Path,
    weights: str | None,
    products: str | None,
    activations: str,
    kv: str | None,
    window: int | None,
    sinks: int | None,
    chunk: int | None,
    memory: str,
    check: bool,
    check_tokens: int | None,
    force: bool,
) -> None:
    """Export CHECKPOINT (made by `allmem convert`) to ONNX in the folder OUT."""
    # Imported here: PyTorch takes seconds to load, and `allmem --help` should not.
    from transformers.utils import logging

    from allmem_exporters.onnx.export import export as run

    logging.disable_progress_bar()
    run(
        checkpoint,
        out,
        weights=weights,
        products=products,
        activations=activations,
        kv=kv,
        window=window,
        sinks=sinks,
        chunk=chunk,
        memory=memory,
        check=check,
        check_tokens=check_tokens,
        force=force,
        report=lambda line: click.echo(line, err=True),
    )
