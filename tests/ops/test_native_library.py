"""Finding, checking and registering the native library."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import allmem_ops
from allmem_ops import library
from allmem_ops.schema import VERSION


@pytest.fixture
def built() -> Path:
    try:
        return library.library_path()
    except library.LibraryNotFound as error:
        pytest.skip(str(error))


class Recorder:
    """Stands for onnxruntime.SessionOptions."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def register_custom_ops_library(self, path: str) -> None:
        self.paths.append(path)


def fake_library(folder: Path, source: str) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler to build a fake library with")
    (folder / "fake.c").write_text(source)
    path = folder / "fake.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path, folder / "fake.c"], check=True)
    return path


def test_library_speaks_the_version_of_the_table(built: Path) -> None:
    info = library.check_library()
    assert info.path == built
    assert info.operator_version == VERSION
    assert info.cpu_path in ("generic", "avx2", "avx512", "avx512vnni")
    assert all(re.fullmatch(r"(sm|compute)_\d+[af]?", each) for each in info.cuda_architectures)


@pytest.mark.parametrize(
    ("said", "architectures"),
    [("", ()), ("sm_75 sm_120 compute_120", ("sm_75", "sm_120", "compute_120"))],
)
def test_library_says_what_its_cuda_kernels_were_compiled_for(
    tmp_path: Path, said: str, architectures: tuple[str, ...]
) -> None:
    path = fake_library(
        tmp_path,
        'const char *allmem_ops_version(void) { return "0.1.0"; }\n'
        f"int allmem_ops_operator_version(void) {{ return {VERSION}; }}\n"
        'const char *allmem_ops_cpu_path(void) { return "generic"; }\n'
        f'const char *allmem_ops_cuda_architectures(void) {{ return "{said}"; }}\n'
        "void RegisterCustomOps(void) {}\n",
    )
    assert library.check_library(path).cuda_architectures == architectures


def test_registering_hands_the_checked_path_to_the_options(built: Path) -> None:
    options = Recorder()
    library.register(options)
    assert options.paths == [str(built)]


def test_library_of_another_operator_version_is_refused_before_registering(tmp_path: Path) -> None:
    path = fake_library(
        tmp_path,
        'const char *allmem_ops_version(void) { return "9.9"; }\n'
        "int allmem_ops_operator_version(void) { return 77; }\n"
        'const char *allmem_ops_cpu_path(void) { return "generic"; }\n'
        "void RegisterCustomOps(void) {}\n",
    )
    options = Recorder()
    with pytest.raises(
        library.LibraryVersionError, match=rf"9\.9.*version 77.*needs version {VERSION}"
    ):
        library.register(options, path)
    assert options.paths == []


def test_library_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = fake_library(tmp_path, "int nothing(void) { return 0; }\n")
    with pytest.raises(library.LibraryVersionError, match="no allmem operator library"):
        library.check_library(path)


def test_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("not a library")
    with pytest.raises(library.LibraryError, match="does not load"):
        library.check_library(path)


def test_missing_library_says_how_to_build_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(library.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(allmem_ops, "__path__", [str(tmp_path)])
    with pytest.raises(library.LibraryNotFound, match="pip.*CMake"):
        library.library_path()


def test_named_library_that_is_missing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(library.LibraryNotFound, match=r"none\.so"):
        library.library_path()


def test_unknown_kernels_asked_for_by_environment_are_an_error(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLMEM_CPU", "sse9")
    with pytest.raises(library.LibraryError, match=r"ALLMEM_CPU is 'sse9'.*generic"):
        library.check_library()


@pytest.mark.parametrize("path", ["generic", "avx2", "avx512", "avx512vnni"])
def test_environment_chooses_the_kernels(
    built: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    order = ["generic", "avx2", "avx512", "avx512vnni"]
    if order.index(path) > order.index(library.cpu_path()):
        pytest.skip(f"this CPU cannot run the {path} kernels")
    monkeypatch.setenv("ALLMEM_CPU", path)
    assert library.cpu_path() == path


def test_finding_the_library_does_not_import_onnxruntime() -> None:
    code = "import sys, allmem_ops.library; assert 'onnxruntime' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
