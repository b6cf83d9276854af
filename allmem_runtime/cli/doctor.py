"""``allmem doctor``: does everything work on this machine?"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from allmem_runtime.cli.exit_codes import ERROR, OK
from allmem_runtime.cli.messages import put
from allmem_runtime.cli.option_flags import FilePath
from allmem_runtime.cli.shared_options import command, json_flag


@command()
@click.argument("model", required=False, type=FilePath())
@json_flag("One JSON object instead of lines.")
def doctor(model: Path | None, as_json: bool) -> int:
    """Check the runtime, the devices and the operators; with MODEL, that model too.

    Both operators are run on each device and compared with their reference in NumPy. The exit code
    is 1 if anything failed; a warning is no failure.
    """
    from allmem_runtime.health.doctor import examine

    checks = []
    for check in examine(model):
        checks.append(check)
        if not as_json:
            put(f"{check.status:<5} {check.name:<32} {check.detail}")
    good = all(check.status != "fail" for check in checks)
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        click.echo(json.dumps({"ok": good, "checks": rows}, indent=2))
    return OK if good else ERROR
