"""Who may import whom: the runtime stays small, and nothing depends on the commands."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNTIME = sorted((ROOT / "allmem_runtime").rglob("*.py"))
OPERATORS = sorted((ROOT / "custom_ops" / "allmem_ops").rglob("*.py"))
EXPORTERS = sorted((ROOT / "exporters" / "allmem_exporters").rglob("*.py"))

HEAVY = {"torch", "transformers", "optimum", "onnx", "onnxscript", "onnx_ir", "gguf"}
CONTRACT = {"allmem_runtime.spec", "allmem_runtime.config", "allmem_runtime.errors"}


def imports(path: Path) -> set[str]:
    """Modules a file names in its imports, wherever they stand in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_the_rules_look_at_files() -> None:
    assert len(RUNTIME) > 20 and OPERATORS and EXPORTERS


@pytest.mark.parametrize("path", [*RUNTIME, *OPERATORS], ids=lambda p: p.stem)
def test_runtime_and_operators_never_import_training_libraries(path: Path) -> None:
    assert not tops(path) & (HEAVY | {"allmem_exporters"})


@pytest.mark.parametrize("path", RUNTIME, ids=lambda p: p.stem)
def test_onnx_runtime_is_imported_in_one_room_only(path: Path) -> None:
    assert "onnxruntime" not in tops(path) or path.parent.name == "engine"


@pytest.mark.parametrize("path", OPERATORS, ids=lambda p: p.stem)
def test_operators_know_neither_runtime_nor_onnx_runtime(path: Path) -> None:
    assert not tops(path) & {"allmem_runtime", "onnxruntime"}


@pytest.mark.parametrize("path", [*RUNTIME, *OPERATORS, *EXPORTERS], ids=lambda p: p.stem)
def test_nothing_imports_the_commands(path: Path) -> None:
    if path.parent.name not in ("cli", "commands"):
        assert not any(name.startswith("allmem_runtime.cli") for name in imports(path))


def test_contract_modules_import_no_other_part_of_the_runtime() -> None:
    for path in RUNTIME:
        if path.stem in ("spec", "config", "errors"):
            ours = {n for n in imports(path) if n.startswith("allmem_")}
            assert {".".join(n.split(".")[:2]) for n in ours} <= CONTRACT


def test_importing_the_runtime_loads_no_training_library() -> None:
    code = (
        "import sys, allmem_runtime; "
        f"bad = {sorted(HEAVY | {'allmem_exporters'})!r}; "
        "print(*[name for name in bad if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": ""},
    )
    assert done.stdout.strip() == ""


def test_public_names_are_there_and_documented() -> None:
    import allmem_runtime

    for name in allmem_runtime.__all__:
        assert getattr(allmem_runtime, name).__doc__, name
