"""Every node of an export runs on the CUDA provider, and its decode step can be captured.

On the stand-in device of tests/cuda_device: ONNX Runtime decides as it does beside a GPU.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from lively import FAMILIES, write_lively

from allmem_exporters.onnx.export import export
from allmem_runtime.config import Manifest
from allmem_runtime.engine.captured_families import may_be_captured
from allmem_runtime.spec import MANIFEST_FILE

DEVICE = Path(__file__).parents[1] / "cuda_device"
sys.path.insert(0, str(DEVICE))
import cuda_stand_in as stand_in  # noqa: E402

pytestmark = pytest.mark.skipif(stand_in.missing() is not None, reason=str(stand_in.missing()))
TYPES = ("float16", "float32")
ON_CUDA = {name: config for name, config in FAMILIES.items() if config.cache_dtype != "int8"}
COPYING = {("olmo3, norms behind, two ropes", "float16")}
"""Six unequal parts of one product: queries, keys, values, the memory's, control, and padding."""
CASES = [(name, activations) for name in ON_CUDA for activations in TYPES]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Every family with either type of activations."""
    root = tmp_path_factory.mktemp("families")
    folders = {}
    for number, (name, config) in enumerate(ON_CUDA.items()):
        checkpoint = write_lively(root / f"checkpoint{number}", config)
        for activations in TYPES:
            folder = root / f"{activations}-{number}"
            export(checkpoint, folder, activations=activations, check=False)
            folders[name, activations] = folder
    return folders


@pytest.fixture(scope="module")
def seen(
    exports: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What ``cuda_capture.py`` saw, by folder."""
    device = stand_in.build(tmp_path_factory.mktemp("device"))
    if stand_in.headers() is None:
        pytest.skip("the headers of ONNX Runtime are not there; building the package fetches them")
    variables = stand_in.environment(device)
    variables["ALLMEM_OPS_LIBRARY"] = str(stand_in.build_operators(device))
    variables["PYTHONPATH"] = ":".join([str(DEVICE), *filter(None, sys.path)])
    script = Path(__file__).with_name("cuda_capture.py")
    command = [sys.executable, str(script), *map(str, exports.values())]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_node_runs_on_the_cuda_provider(
    exports: dict[tuple[str, str], Path], seen: dict[str, Any], case: tuple[str, str]
) -> None:
    assert seen[str(exports[case])]["elsewhere"] == {}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_copied_to_the_host_and_no_type_is_changed_on_the_way(
    exports: dict[tuple[str, str], Path], seen: dict[str, Any], case: tuple[str, str]
) -> None:
    assert seen, "the graph below is written by the run"
    graph = onnx.load(exports[case] / "optimized.onnx", load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    assert not [kind for kind in kinds if kind.startswith("Memcpy")]
    assert kinds.count("Cast") == (1 if case[1] == "float16" else 0), "of the logits"


def captured(folder: Path) -> bool:
    text = (folder / MANIFEST_FILE).read_text(encoding="utf-8")
    return may_be_captured(Manifest.from_json(text, str(folder)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_captured_decode_step_reads_nothing_of_the_host(
    exports: dict[tuple[str, str], Path], seen: dict[str, Any], case: tuple[str, str]
) -> None:
    # A Split of many unequal parts passes their sizes through host memory, which is given back
    # after the capture: replays would read what then lies there.
    found = seen[str(exports[case])]
    assert captured(exports[case]) == (case not in COPYING)
    if case in COPYING:
        assert found["capture"]["captured_host_copies"] > 0
        return
    assert found["problems"] == []
    assert found["capture"]["graphs"] == 1
    assert found["capture"]["captured_launches"] > 0
    assert found["capture"]["captured_host_copies"] == 0
    assert found["replay"]["graph_launches"] == 1
    assert found["replay"]["launches"] == 0
