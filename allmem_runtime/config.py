"""The manifest of a model: frozen dataclasses, read strictly, every value within named bounds.

Nothing is allocated on the strength of a number here before that number was checked.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any, get_args

from allmem_runtime.errors import ModelFileError
from allmem_runtime.spec import SPEC_VERSION, ElementType, StateSpec
from allmem_runtime.strict_json import is_whole, parse_object

MAX_MANIFEST_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}\Z")

# Bounds are a generous factor above any published model of these families.
BOUNDS: dict[str, tuple[int, int]] = {
    "layers": (1, 1024),
    "hidden_size": (1, 1 << 17),
    "intermediate_size": (1, 1 << 20),
    "query_heads": (1, 1024),
    "kv_heads": (1, 1024),
    "head_dim": (2, 1024),
    "vocab_size": (2, 1 << 22),
    "trained_context": (1, 1 << 32),
    "memory.heads": (1, 1024),
    "memory.width": (1, 1 << 16),
    "memory.hidden": (1, 1 << 16),
    "memory.kernel": (1, 64),
    "window": (1, 1 << 24),
    "sinks": (0, 1 << 20),
    "chunk": (1, 1 << 24),
}
MAX_STATE_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class Backbone:
    """Sizes of the pretrained decoder."""

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    query_heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    trained_context: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Sizes of the neural memory of each layer."""

    heads: int
    width: int
    hidden: int
    kernel: int


@dataclass(frozen=True, slots=True)
class LocalLayers:
    """Layers that keep the window they were trained with, and no sinks."""

    layers: tuple[int, ...]
    window: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size and SHA-256 of a file of the model folder."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything the runtime must know of a model before it opens the graph."""

    name: str
    backbone: Backbone
    memory: Memory
    window: int
    sinks: int
    chunk: int
    cache: ElementType
    weights: str
    operators: dict[str, int]
    begin_tokens: tuple[int, ...]
    end_tokens: tuple[int, ...]
    files: dict[str, FileRecord]
    source: dict[str, str] = field(default_factory=dict)
    activations: ElementType = "float32"
    windows: tuple[tuple[int, ...], ...] | None = None
    """Of each layer, of each key/value head; None where all are ``window``, else the longest."""
    local: LocalLayers | None = None
    """None where no layer differs from the others."""
    captured: bool | None = None
    """Whether a step may be captured as a CUDA graph; None where its family says so."""
    spec_version: int = SPEC_VERSION

    @property
    def shortest_window(self) -> int:
        """The least that a head sees."""
        least = min((window for row in self.windows or () for window in row), default=self.window)
        return min(least, self.local.window) if self.local else least

    def is_local(self, layer: int) -> bool:
        """Whether a layer keeps the window it was trained with, and no sinks."""
        return self.local is not None and layer in self.local.layers

    def layer_sinks(self, layer: int) -> int:
        """First tokens that a layer keeps."""
        return 0 if self.is_local(layer) else self.sinks

    @property
    def state(self) -> StateSpec:
        """The state this model keeps."""
        return StateSpec.build(
            layers=self.backbone.layers,
            kv_heads=self.backbone.kv_heads,
            head_dim=self.backbone.head_dim,
            window=self.window,
            windows=self.windows,
            local_layers=self.local.layers if self.local else (),
            local_window=self.local.window if self.local else None,
            sinks=self.sinks,
            cache=self.cache,
            memory_heads=self.memory.heads,
            memory_width=self.memory.width,
            memory_hidden=self.memory.hidden,
            kernel=self.memory.kernel,
        )

    def to_json(self) -> str:
        """Canonical text: keys sorted, two spaces."""
        values = dataclasses.asdict(self)
        for key in ("windows", "local", "captured"):
            if values[key] is None:  # as earlier versions write and read it
                del values[key]
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> Manifest:
        """Read a manifest strictly.

        Args:
            text: JSON of at most ``MAX_MANIFEST_BYTES`` bytes.
            origin: file name for error messages.

        Raises:
            ModelFileError: not JSON, a key unknown, missing, repeated or out of its bounds;
                the text names the key, the value and what is allowed.
        """
        return _Reader(origin).manifest(text)


class _Reader:
    """Reads one manifest; holds the name of the file for its messages."""

    def __init__(self, origin: str) -> None:
        self.origin = origin

    def fail(self, what: str) -> ModelFileError:
        return ModelFileError(
            f"{self.origin}: {what}.", "Export the model again, or fetch an intact copy."
        )

    def manifest(self, text: str) -> Manifest:
        if len(text.encode("utf-8", "replace")) > MAX_MANIFEST_BYTES:
            raise self.fail(f"the manifest is larger than {MAX_MANIFEST_BYTES} bytes")
        try:
            data = parse_object(text)
        except ValueError as error:
            raise self.fail(f"not a JSON manifest ({error})") from None
        version = data.get("spec_version")
        if version != SPEC_VERSION:
            raise ModelFileError(
                f"{self.origin}: spec_version is {version!r}; this runtime reads {SPEC_VERSION}.",
                "Export the model again with this version, or install the matching runtime.",
            )
        # Models exported before there was a choice do not say it.
        data.setdefault("activations", "float32")
        data.setdefault("windows", None)
        data.setdefault("local", None)
        data.setdefault("captured", None)
        self.keys(data, Manifest, "")
        backbone, memory = self.table(data, "backbone"), self.table(data, "memory")
        self.keys(backbone, Backbone, "backbone.")
        self.keys(memory, Memory, "memory.")
        manifest = Manifest(
            name=self.text(data, "name"),
            backbone=Backbone(
                model_type=self.text(backbone, "model_type"),
                **{
                    f.name: self.number(backbone, f.name, f.name)
                    for f in dataclasses.fields(Backbone)
                    if f.name != "model_type"
                },
            ),
            memory=Memory(
                **{
                    f.name: self.number(memory, f.name, f"memory.{f.name}")
                    for f in dataclasses.fields(Memory)
                }
            ),
            window=self.number(data, "window", "window"),
            sinks=self.number(data, "sinks", "sinks"),
            chunk=self.number(data, "chunk", "chunk"),
            cache=self.element(data, "cache"),
            weights=self.text(data, "weights"),
            operators=self.operators(data),
            begin_tokens=self.tokens(data, "begin_tokens", backbone),
            end_tokens=self.tokens(data, "end_tokens", backbone),
            files=self.files(data),
            source=self.source(data),
            activations=self.activations(data),
            windows=self.windows(data, backbone),
            local=self.local(data, backbone),
            captured=self.captured(data),
        )
        self.relations(manifest)
        return manifest

    def keys(self, data: dict[str, Any], kind: type, prefix: str) -> None:
        known = {f.name for f in dataclasses.fields(kind)}
        for name in data:
            if name not in known:
                raise self.fail(f"unknown key {prefix + name!r}")
        for name in sorted(known):
            if name not in data:
                raise self.fail(f"the key {prefix + name!r} is missing")

    def table(self, data: dict[str, Any], key: str) -> dict[str, Any]:
        value = data[key]
        if not isinstance(value, dict):
            raise self.fail(f"{key} is {value!r}; it must be an object")
        return value

    def number(self, data: dict[str, Any], key: str, name: str) -> int:
        value, (low, high) = data[key], BOUNDS[name]
        if not is_whole(value, low, high):
            raise self.fail(f"{name} is {value!r}; it must be an integer {low} to {high}")
        return value

    def text(self, data: dict[str, Any], key: str) -> str:
        value = data[key]
        if not isinstance(value, str) or len(value) > 1000:
            raise self.fail(
                f"{key} is {str(value)[:80]!r}; it must be a text of up to 1000 characters"
            )
        return value

    def element(self, data: dict[str, Any], key: str) -> ElementType:
        value = data[key]
        if value not in get_args(ElementType):
            raise self.fail(f"{key} is {value!r}; allowed: {', '.join(get_args(ElementType))}")
        return value  # type: ignore[no-any-return]

    def activations(self, data: dict[str, Any]) -> ElementType:
        value = self.element(data, "activations")
        if value == "int8":
            raise self.fail("activations is 'int8'; allowed: float32, float16")
        return value

    def windows(
        self, data: dict[str, Any], backbone: dict[str, Any]
    ) -> tuple[tuple[int, ...], ...] | None:
        value, (layers, heads) = data["windows"], (backbone["layers"], backbone["kv_heads"])
        if value is None:
            return None
        rows = value if isinstance(value, list) else []
        if len(rows) != layers or not all(isinstance(r, list) and len(r) == heads for r in rows):
            raise self.fail(
                f"windows must be a list of {heads} windows for each of {layers} layers"
            )
        return tuple(
            tuple(self.number({"window": window}, "window", "window") for window in row)
            for row in rows
        )

    def local(self, data: dict[str, Any], backbone: dict[str, Any]) -> LocalLayers | None:
        if data["local"] is None:
            return None
        value = self.table(data, "local")
        self.keys(value, LocalLayers, "local.")
        layers, last = value["layers"], backbone["layers"] - 1
        fits = isinstance(layers, list) and all(is_whole(layer, 0, last) for layer in layers)
        if not fits or not layers or sorted(set(layers)) != layers:
            raise self.fail(f"local.layers must be a list of layers 0 to {last}, ascending")
        return LocalLayers(tuple(layers), self.number(value, "window", "window"))

    def captured(self, data: dict[str, Any]) -> bool | None:
        value = data["captured"]
        if value is not None and not isinstance(value, bool):
            raise self.fail(f"captured is {str(value)[:80]!r}; it must be true or false")
        return value

    def operators(self, data: dict[str, Any]) -> dict[str, int]:
        value = self.table(data, "operators")
        for name, version in value.items():
            if not is_whole(version, 1, 1 << 16):
                raise self.fail(f"operators.{name} is {version!r}; it must be a version number")
        return value

    def tokens(self, data: dict[str, Any], key: str, backbone: dict[str, Any]) -> tuple[int, ...]:
        value = data[key]
        limit = backbone["vocab_size"]
        if not isinstance(value, list) or len(value) > 64:
            raise self.fail(
                f"{key} is {str(value)[:80]!r}; it must be a list of up to 64 token ids"
            )
        for token in value:
            if not is_whole(token, 0, limit - 1):
                raise self.fail(f"{key} holds {token!r}; token ids are 0 to {limit - 1}")
        return tuple(value)

    def files(self, data: dict[str, Any]) -> dict[str, FileRecord]:
        records = {}
        for name, record in self.table(data, "files").items():
            if not _FILE_NAME.match(name):
                raise self.fail(f"files names {name!r}, which is not a plain file name")
            if not isinstance(record, dict) or set(record) != {"bytes", "sha256"}:
                raise self.fail(f"files.{name} must hold bytes and sha256")
            size, digest = record["bytes"], record["sha256"]
            if not is_whole(size, 0, 1 << 44):
                raise self.fail(f"files.{name}.bytes is {size!r}; it must be a file size")
            if not isinstance(digest, str) or not _SHA256.match(digest):
                raise self.fail(f"files.{name}.sha256 is not 64 lower-case hexadecimal digits")
            records[name] = FileRecord(size, digest)
        return records

    def source(self, data: dict[str, Any]) -> dict[str, str]:
        value = self.table(data, "source")
        for name in value:
            self.text(value, name)
        return value

    def relations(self, manifest: Manifest) -> None:
        backbone, memory = manifest.backbone, manifest.memory
        if backbone.query_heads % backbone.kv_heads:
            raise self.fail(
                f"query_heads {backbone.query_heads} is no multiple of kv_heads {backbone.kv_heads}"
            )
        if memory.width % memory.heads:
            raise self.fail(
                f"memory.width {memory.width} is no multiple of memory.heads {memory.heads}"
            )
        windows = [window for row in manifest.windows or () for window in row]
        if windows and manifest.window != max(windows):
            raise self.fail(
                f"window is {manifest.window}, and the longest of windows {max(windows)}"
            )
        if windows and manifest.local:
            raise self.fail("windows and local do not go together")
        if manifest.chunk > manifest.shortest_window:
            raise self.fail(
                f"chunk {manifest.chunk} is larger than window {manifest.shortest_window}: tokens "
                "would be seen neither by the window nor by the memory"
            )
        if manifest.state.nbytes > MAX_STATE_BYTES:
            raise self.fail(f"the state would take {manifest.state.nbytes} bytes")
