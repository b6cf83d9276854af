"""Who may import whom: the runtime stays small, and nothing depends on the commands."""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNTIME = sorted((ROOT / "allmem_runtime").rglob("*.py"))
OPERATORS = sorted((ROOT / "custom_ops" / "allmem_ops").rglob("*.py"))
EXPORTERS = sorted((ROOT / "exporters" / "allmem_exporters").rglob("*.py"))

HEAVY = {"torch", "transformers", "optimum", "onnx", "onnxscript", "onnx_ir", "gguf"}
CONTRACT = {"allmem_runtime.spec", "allmem_runtime.config", "allmem_runtime.errors",
            "allmem_runtime.strict_json"}  # fmt: skip
CONTRACT_FILES = {name.rpartition(".")[2] for name in CONTRACT}


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Modules a file names in its imports, wherever they stand in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def offenders(paths: Iterable[Path], forbidden: Callable[[str], bool]) -> list[str]:
    """Every forbidden import in these files: the file and what it imports."""
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in sorted(imports(path))
        if forbidden(name)
    ]


def within(*packages: str) -> Callable[[str], bool]:
    """Whether a module is one of these packages or lies in one of them."""
    return lambda name: any(name == p or name.startswith(f"{p}.") for p in packages)


def test_the_rules_look_at_files() -> None:
    assert len(RUNTIME) > 20 and OPERATORS and EXPORTERS


def test_a_forbidden_import_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    lines = ["import os", "import torch.nn as nn", "def f():", "    from torch import Tensor"]
    (tmp_path / "one.py").write_text("\n".join(lines))
    assert imports(tmp_path / "one.py") == {"os", "torch.nn", "torch", "torch.Tensor"}
    assert within("torch")("torch.nn") and not within("torch")("torchvision")


def test_every_import_is_absolute() -> None:
    assert offenders([*RUNTIME, *OPERATORS, *EXPORTERS], lambda name: name.startswith(".")) == []


def test_runtime_and_operators_never_import_training_libraries() -> None:
    assert offenders([*RUNTIME, *OPERATORS], within(*HEAVY, "allmem_exporters")) == []


def test_onnx_runtime_is_imported_in_one_room_only() -> None:
    elsewhere = [path for path in RUNTIME if path.parent.name != "engine"]
    assert offenders(elsewhere, within("onnxruntime")) == []


def test_operators_know_neither_runtime_nor_onnx_runtime() -> None:
    assert offenders(OPERATORS, within("allmem_runtime", "onnxruntime")) == []


def test_no_module_imports_the_private_names_of_another() -> None:
    def private(name: str) -> bool:
        last = name.rpartition(".")[2]
        return name.startswith("allmem_") and last.startswith("_") and not last.startswith("__")

    assert offenders([*RUNTIME, *OPERATORS, *EXPORTERS], private) == []


def test_nothing_imports_the_commands() -> None:
    others = [
        path
        for path in (*RUNTIME, *OPERATORS, *EXPORTERS)
        if path.parent.name not in ("cli", "commands")
    ]
    assert offenders(others, lambda name: name.startswith("allmem_runtime.cli")) == []


def test_a_session_does_not_know_who_keeps_its_text_or_asks_it() -> None:
    session = [path for path in RUNTIME if path.parent.name in ("session", "engine", "text")]
    assert session
    assert offenders(session, within("allmem_runtime.passages", "allmem_runtime.model")) == []


def test_passages_know_neither_engine_nor_sessions_but_what_a_session_asks_of_them() -> None:
    passages = [path for path in RUNTIME if path.parent.name == "passages"]
    assert passages
    known = within("allmem_runtime.session.kept_text")
    rooms = within("allmem_runtime.engine", "allmem_runtime.session", "allmem_runtime.model")
    assert offenders(passages, lambda n: rooms(n) and not known(n)) == []


def test_contract_modules_import_no_other_part_of_the_runtime() -> None:
    contract = [path for path in RUNTIME if path.stem in CONTRACT_FILES]
    assert contract
    allowed = within(*CONTRACT)
    assert offenders(contract, lambda n: n.startswith("allmem_") and not allowed(n)) == []


def circle(paths: Iterable[Path], roots: Iterable[Path]) -> list[str]:
    """Modules that import each other in a circle, one after the other; none if there is no such."""
    modules = {}
    for path in paths:
        root = next(root for root in roots if path.is_relative_to(root))
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = path
    graph = {}
    for name, path in modules.items():
        named = imports(path) & modules.keys()
        # `from package import module` asks the package for nothing of its own.
        packages = {n for n in named if any(o.startswith(f"{n}.") for o in named)}
        graph[name] = named - packages - {name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_of_imports_is_seen_even_if_it_is_for_types_only(tmp_path: Path) -> None:
    files = {"a": "import p.b", "b": "if TYPE_CHECKING:\n    from p.c import x", "c": ""}
    (tmp_path / "p").mkdir()
    for name, text in files.items():
        (tmp_path / "p" / f"{name}.py").write_text(text)
    paths = [tmp_path / "p" / f"{name}.py" for name in files]
    assert circle(paths, [tmp_path]) == []
    imports.cache_clear()
    (tmp_path / "p" / "c.py").write_text("def f():\n    from p.a import y")
    assert set(circle(paths, [tmp_path])) == {"p.a", "p.b", "p.c"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    roots = [ROOT / "custom_ops", ROOT / "exporters", ROOT]
    assert circle([*RUNTIME, *OPERATORS, *EXPORTERS], roots) == []


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
