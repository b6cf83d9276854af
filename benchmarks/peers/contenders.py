"""Who is measured, with which file, and what must be installed for it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import files
from benchmarks.peers.child import Gone

OURS = "allmem"
LLAMA = "llama.cpp Q4"
LLAMA_TOOL = "llama-bench Q4"
LLAMA_HALF = "llama.cpp float16"
GENAI = "onnxruntime-genai int4"
TORCH = "transformers float32"
VERSIONS = {
    "llama-cpp-python": "0.3.36",
    "xllamacpp": "2026.10.11549",
    "onnxruntime-genai": "0.18.0",
}
"""With which the figures of docs/speed.md were or are to be measured; others say their own."""
ORDER = (OURS, LLAMA, LLAMA_TOOL, GENAI, TORCH, LLAMA_HALF)


@dataclass(frozen=True, slots=True)
class Setup:
    """What the user gave.

    Attributes:
        model: our model folder.
        gguf: the file both it and the peers were made of.
        folder: where files for the peers are made and kept.
        python: Python of the runtime.
        pythons: others, by the name of a module of ``systems``.
        tool: llama-bench, or None.
        threads: CPU threads of everybody.
        context: tokens that must fit.
    """

    model: Path
    gguf: Path
    folder: Path
    python: str
    threads: int
    context: int
    tool: Path | None = None
    pythons: dict[str, str] = field(default_factory=dict)

    def python_of(self, module: str) -> str:
        """The Python that has a system."""
        return self.pythons.get(module, self.python)


@dataclass(frozen=True, slots=True)
class Contender:
    """One system with its file.

    Attributes:
        name: for people.
        module: of ``benchmarks.peers.systems``; empty for llama.cpp's own tool.
        python: that runs it.
        model: its file or folder.
    """

    name: str
    module: str
    python: str
    model: Path

    @property
    def keeps(self) -> bool:
        """Whether what it has read can be kept in a file."""
        return self.module == "llama_library"


def prepare(setup: Setup, wanted: tuple[str, ...]) -> tuple[list[Contender], dict[str, str]]:
    """All who can take part, and why the others cannot."""
    makers: dict[str, Callable[[], Contender]] = {
        OURS: lambda: Contender(OURS, "ours", setup.python, setup.model),
        LLAMA: lambda: _llama(setup, LLAMA, setup.gguf),
        LLAMA_TOOL: lambda: _tool(setup),
        GENAI: lambda: _genai(setup),
        TORCH: lambda: _torch(setup),
        LLAMA_HALF: lambda: _llama(setup, LLAMA_HALF, files.float16_file(setup.gguf, setup.folder)),
    }
    found: list[Contender] = []
    missing: dict[str, str] = {}
    for name in ORDER:
        if name not in wanted:
            continue
        try:
            found.append(makers[name]())
        except Gone as gone:
            missing[name] = str(gone)
    return found, missing


def _llama(setup: Setup, name: str, model: Path) -> Contender:
    """Its library where Python can call it, else its server in a package."""
    for module, package in (("llama_library", "llama_cpp"), ("llama_server", "xllamacpp")):
        python = setup.python_of(module)
        if _has(python, package):
            if module == "llama_server":
                model = files.longer_file(model, setup.folder, setup.context)
            return Contender(name, module, python, model)
    raise Gone(
        f"install it with {_pip('llama-cpp-python')} (built for this CPU; needs a compiler) or "
        f"{_pip('xllamacpp')}"
    )


def _tool(setup: Setup) -> Contender:
    if setup.tool is None:
        raise Gone("llama-bench was not found: name it with --llama-bench")
    return Contender(LLAMA_TOOL, "", str(setup.tool), setup.gguf)


def _genai(setup: Setup) -> Contender:
    python = setup.python_of("genai")
    if not _has(python, "onnxruntime_genai"):
        raise Gone(
            f"install it with `pip install onnxruntime-genai=={VERSIONS['onnxruntime-genai']}`"
        )
    folder = files.genai_folder(setup.gguf, setup.folder, python, setup.context)
    return Contender(GENAI, "genai", python, folder)


def _torch(setup: Setup) -> Contender:
    python = setup.python_of("pytorch")
    if not _has(python, "transformers"):
        raise Gone("install it with `pip install transformers torch`")
    folder = files.transformers_folder(setup.gguf, setup.folder)
    return Contender(TORCH, "pytorch", python, folder)


def _pip(package: str) -> str:
    return f"`pip install {package}=={VERSIONS[package]}`"


def _has(python: str, package: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    try:
        return subprocess.run([python, "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False
