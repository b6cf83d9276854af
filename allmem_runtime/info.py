"""What a model or a saved session is made of, told from its header: nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allmem_ops.library import LibraryInfo
from allmem_runtime.config import BOUNDS, Manifest
from allmem_runtime.engine import prepared
from allmem_runtime.engine.operators import find_library
from allmem_runtime.files.package import Package, open_package
from allmem_runtime.files.snapshot import read_header
from allmem_runtime.head_windows import ring_bytes, shares, window_lines
from allmem_runtime.passages.files import text_info
from allmem_runtime.printable import printable
from allmem_runtime.quantities import counted, format_bytes

MOST_SOURCES = 20
"""Sources of a session that are told to people; JSON has them all."""

FULL_ATTENTION_LENGTHS = (37_000, 128_000, 1_000_000)
"""Texts, in tokens, for which the cache of full attention is told beside the state."""

_CACHE_BYTES = 2  # float16, as inference servers keep it

STATE_PARTS = {
    "key": "keys of sinks and window",
    "value": "values of sinks and window",
    "weights": "fast weights",
    "momentum": "momentum of the fast weights",
    "gradient": "gradient of the open chunk",
    "momentum_sum": "momentum of the open chunk",
    "conv_tail": "convolution tails",
    "scale": "scales of int8 keys and values",
}


def full_attention_bytes(manifest: Manifest, tokens: int) -> int:
    """Keys and values in float16 that the same decoder would keep for this many tokens."""
    backbone = manifest.backbone
    return 2 * _CACHE_BYTES * backbone.layers * backbone.kv_heads * backbone.head_dim * tokens


def state_parts(manifest: Manifest) -> dict[str, int]:
    """Bytes of each part of the state, over all layers."""
    parts: dict[str, int] = {}
    for _, tensor in manifest.state:
        parts[tensor.name] = parts.get(tensor.name, 0) + tensor.nbytes
    return parts


def model_info(path: str | Path) -> dict[str, Any]:
    """What a model is, as values that JSON knows.

    Raises:
        ModelFileError: not a model of ours, or damaged.
    """
    package = open_package(path)
    return {**package_info(package), "prepared": prepared_info(package)}


def prepared_info(package: Package) -> dict[str, Any]:
    """Whether opening a model here would map prepared weights, as values that JSON knows."""
    library = find_library("auto", package.manifest.operators)
    found = prepared.find(package, library.path if isinstance(library, LibraryInfo) else None)
    return {
        "used": found.folder is not None,
        "folder": None if found.folder is None else str(found.folder),
        "notice": found.notice,
    }


def package_info(package: Package) -> dict[str, Any]:
    """What an opened model is, as values that JSON knows."""
    manifest = package.manifest
    backbone, memory = manifest.backbone, manifest.memory
    return {
        "kind": "model",
        "name": manifest.name,
        "digest": package.digest,
        "architecture": {
            "model_type": backbone.model_type,
            "layers": backbone.layers,
            "hidden_size": backbone.hidden_size,
            "query_heads": backbone.query_heads,
            "kv_heads": backbone.kv_heads,
            "head_dim": backbone.head_dim,
            "vocab_size": backbone.vocab_size,
            "trained_context": backbone.trained_context,
            "window": manifest.window,
            "windows": manifest.windows and [list(row) for row in manifest.windows],
            "local": manifest.local
            and {"layers": list(manifest.local.layers), "window": manifest.local.window},
            "sinks": manifest.sinks,
            "chunk": manifest.chunk,
            "memory_heads": memory.heads,
            "memory_width": memory.width,
            "memory_hidden": memory.hidden,
        },
        "weights": {
            "element": manifest.weights,
            "bytes": package.graph.stat().st_size
            + sum(manifest.files[name].bytes for name in package.scan.external),
        },
        "state": {
            "bytes": manifest.state.nbytes,
            "cache": manifest.cache,
            "parts": state_parts(manifest),
            "windows": shares(
                head_windows(manifest),
                [manifest.layer_sinks(layer) for layer in range(backbone.layers)],
                ring_bytes(manifest.state),
            ),
        },
        "activations": manifest.activations,
        "operators": dict(manifest.operators),
        "full_attention": [
            {"tokens": tokens, "bytes": full_attention_bytes(manifest, tokens)}
            for tokens in FULL_ATTENTION_LENGTHS
        ],
        "source": dict(manifest.source),
    }


def head_windows(manifest: Manifest) -> tuple[tuple[int, ...], ...]:
    """Of each layer, of each key/value head."""

    def layer(at: int) -> tuple[int, ...]:
        local = manifest.local if manifest.is_local(at) else None
        return (local.window if local else manifest.window,) * manifest.backbone.kv_heads

    return manifest.windows or tuple(map(layer, range(manifest.backbone.layers)))


def model_lines(info: dict[str, Any]) -> Iterator[str]:
    """The same for people, as lines."""
    shape = info["architecture"]
    yield f"model      {printable(info['name'])}"
    yield (
        f"decoder    {shape['model_type']}, {shape['layers']} layers of {shape['hidden_size']}, "
        f"{shape['query_heads']} query and {shape['kv_heads']} key/value heads of "
        f"{shape['head_dim']}, {counted(shape['vocab_size'], 'token')}, trained on texts of "
        f"{shape['trained_context']:,}"
    )
    last = counted(shape["window"], "token")
    if shape["windows"]:
        for number, line in enumerate(window_lines(shape["windows"], info["state"]["windows"])):
            yield f"{'' if number else 'windows':<11}{line}"
        last = f"{min(map(min, shape['windows'])):,} to {last}, by head,"
    yield (
        f"reading    the last {last} and the first {shape['sinks']:,} exactly, "
        f"the rest through a memory of {shape['memory_heads']} x {shape['memory_hidden']} units a "
        f"layer, renewed every {counted(shape['chunk'], 'token')}"
    )
    if shape["local"]:
        yield (
            f"local      {len(shape['local']['layers'])} of these layers, which see the last "
            f"{counted(shape['local']['window'], 'token')} and no others, as they were trained"
        )
    weights = info["weights"]
    yield (
        f"weights    {format_bytes(weights['bytes'])}, {weights['element']}; "
        f"activations {info['activations']}, cache {info['state']['cache']}"
    )
    prepared_weights = info.get("prepared")
    if prepared_weights:
        where, notice = prepared_weights["folder"], prepared_weights["notice"]
        yield f"prepared   {printable(where or notice or 'no; `allmem prepare` does it')}"
    names = [f"{name} {version}" for name, version in sorted(info["operators"].items())]
    yield f"operators  {', '.join(names) or 'none of our own'}"
    yield f"state      {format_bytes(info['state']['bytes'])}, whatever the length of the text"
    for name, count in info["state"]["parts"].items():
        yield f"           {format_bytes(count):>10}  {STATE_PARTS.get(name, name)}"
    yield "instead of a full-attention cache (float16) of"
    for row in info["full_attention"]:
        yield f"           {format_bytes(row['bytes']):>10}  at {row['tokens']:,} tokens"
    for name, value in sorted(info["source"].items()):
        yield f"source     {printable(name)}: {printable(value)}"


def is_session(path: Path) -> bool:
    """Whether a path can only be meant as a session: a file that is no graph."""
    return path.is_file() and path.suffix != ".onnx"


def session_info(path: str | Path) -> dict[str, Any]:
    """What a saved session is, as values that JSON knows; its tensors are not read.

    Raises:
        SessionFileError: not a session file, or damaged.
    """
    header = read_header(Path(path))
    metadata = header.metadata
    place = header.place(BOUNDS["vocab_size"][1])
    return {
        "kind": "session",
        "digest": header.digest,
        "parent": metadata.get("parent") or None,
        "created": metadata.get("created"),
        "model": {"name": header.model_name, "digest": metadata["model_digest"]},
        "position": place.position,
        "turn": place.turn,
        "source": {
            "read_bytes": place.source.offset,
            "finished": place.source.finished,
            "digest": place.source.head or None,
            "digest_bytes": place.source.head_bytes,
        },
        "sources": [
            {
                "name": mark.name or None,
                "read_bytes": mark.offset,
                "finished": mark.finished,
                "digest": mark.digest or None,
            }
            for mark in place.sources
        ],
        "text": text_info(Path(path)),
        "inside": {
            "tensors": len(header.tensors),
            "tensor_bytes": header.data_bytes,
            "recent_tokens": len(place.recent),
            "pending_tokens": len(place.pending),
            "text": False,
        },
    }


def session_lines(info: dict[str, Any]) -> Iterator[str]:
    """The same for people, as lines."""
    model, inside = info["model"], info["inside"]
    yield f"session    {info['digest'][:12]}, saved {printable(str(info['created']))}"
    yield f"parent     {info['parent'][:12] if info['parent'] else 'none'}"
    yield f"model      {printable(model['name'])} ({printable(model['digest'][:12])})"
    yield f"position   {counted(info['position'], 'token')}"
    if len(info["sources"]) > MOST_SOURCES:
        yield f"sources    {counted(len(info['sources']), 'source')}, of which the last are"
    for row in info["sources"][-MOST_SOURCES:]:
        read = f"{printable(row['name'] or 'unnamed')}, {counted(row['read_bytes'], 'byte')}"
        yield f"source     {read}, {'read to its end' if row['finished'] else 'not yet finished'}"
    yield (
        f"inside     {counted(inside['tensors'], 'tensor')}, "
        f"{format_bytes(inside['tensor_bytes'])}; "
        f"the ids of the last {counted(inside['recent_tokens'], 'token')} "
        f"and of {inside['pending_tokens']} that wait"
    )
    yield (
        "           no text, but the state is made of what was read and can give parts of it away"
    )
    text = info["text"]
    if text is None:
        yield "text       none kept"
    elif text["failure"]:
        yield f"text       {printable(text['failure'])}"
    else:
        yield (
            f"text       {printable(text['path'])}, {format_bytes(text['bytes'])}: "
            f"{counted(text['characters'], 'character')} in "
            f"{counted(text['passages'], 'passage')} of {counted(len(text['sources']), 'source')}"
        )
