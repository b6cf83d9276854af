"""The CUDA kernels without ONNX Runtime: a loaded library, and calls of it by named arguments.

The C interface is ``custom_ops/src/cuda/entry/entry.h``. The library says in which order it takes
an operator's arguments, so nothing here depends on one. How one is built: ``kernel_build``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from allmem_ops.contract import ELEMENTS, Operator, Value
from allmem_ops.kernel_fields import KernelValue, kernel_fields

ENTRIES = {"SlidingWindowAttention": "attention", "TTTMemory": "memory"}
"""What the functions of an operator are named after."""

Shape = tuple[int, ...]


class Unavailable(RuntimeError):
    """Something that a measurement or test needs is not here; says what, and the remedy."""


class LaunchError(RuntimeError):
    """CUDA refused a launch."""


class _Value(ctypes.Union):
    _fields_ = [
        ("integer", ctypes.c_int64),
        ("number", ctypes.c_double),
        ("address", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class KernelCall:
    """Everything of a call but the addresses.

    Attributes:
        entry: the part of the entry functions' names that tells the operators apart.
        values: sizes, attributes and element types, by the names of the kernels' arguments.
        output: shape of the first output; every other output has the shape of a state.
    """

    entry: str
    values: Mapping[str, KernelValue]
    output: Shape

    def arguments(self, names: tuple[str, ...], addresses: Mapping[str, int]) -> object:
        """The values as C takes them.

        Args:
            names: of the arguments, in their order.
            addresses: of inputs and outputs; one that is not there is null.

        Raises:
            Unavailable: the library does not know an argument.
        """
        numbers = {name: _per_head(v) for name, v in self.values.items() if isinstance(v, tuple)}
        unknown = [name for name in (*self.values, *addresses) if name not in names]
        if unknown:
            raise Unavailable(
                f"the kernels' library has no argument {unknown[0]!r} of {self.entry}: it was "
                "built from other sources; build it again"
            )
        arguments = (_Value * len(names))(*(self._value(n, addresses, numbers) for n in names))
        vars(arguments)["numbers"] = numbers  # their memory lives as long
        return arguments

    def _value(
        self,
        name: str,
        addresses: Mapping[str, int],
        numbers: Mapping[str, ctypes.Array[ctypes.c_int64]],
    ) -> _Value:
        value = self.values.get(name)
        if isinstance(value, float):
            return _Value(number=value)
        if isinstance(value, tuple):
            return _Value(address=ctypes.addressof(numbers[name]))
        return _Value(address=addresses.get(name)) if value is None else _Value(integer=value)


def _per_head(numbers: tuple[int, ...]) -> ctypes.Array[ctypes.c_int64]:
    """As C takes what heads have of their own: how many numbers there are, and the numbers."""
    return (ctypes.c_int64 * (1 + len(numbers)))(len(numbers), *numbers)


def describe(
    operator: Operator,
    shapes: Mapping[str, Shape],
    attributes: Mapping[str, Value],
    activation: str,
    cache: str = "float32",
) -> KernelCall:
    """The call of an operator.

    Args:
        operator: of the operator table.
        shapes: of the inputs, by name.
        attributes: those that differ from the table's defaults, and the required ones.
        activation: element type of the token stream.
        cache: element type of keys and values.

    Raises:
        ValueError: an attribute is outside its range.
    """
    known = {
        name: size
        for tensor in operator.inputs
        if tensor.name in shapes
        for name, size in zip(tensor.shape, shapes[tensor.name], strict=True)
        if isinstance(name, str)
    }
    elements = {"activation": ELEMENTS.index(activation)}
    if ENTRIES[operator.name] == "attention":
        if "kv_heads" not in known:  # the rings of all heads lie one after the other
            window = attributes["window"]
            assert isinstance(window, tuple)
            known["kv_heads"] = len(window)
        heads = shapes["qkv"][2] // known["head_dim"]
        known["query_heads"] = heads - 2 * known["kv_heads"]
        elements["cache"] = ELEMENTS.index(cache)
        width = known["query_heads"] * known["head_dim"]
    else:
        width = known["width"]
    sizes = {name: known[name] for name in operator.sizes}
    values = {**sizes, **elements, **kernel_fields(operator, attributes)}
    return KernelCall(ENTRIES[operator.name], values, (known["batch"], known["time"], width))


class KernelLibrary:
    """A loaded library; one with the kernels for a device, or one that runs them on the CPU."""

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise Unavailable(f"{path} does not load: {error}") from error
        self.path = path

    def entry(self, name: str, returns: type | None = None) -> ctypes._NamedFuncPointer:
        """The C function ``allmem_entry_NAME``.

        Raises:
            Unavailable: the library has no such function.
        """
        try:
            function: ctypes._NamedFuncPointer = self._library[f"allmem_entry_{name}"]
        except AttributeError as error:
            raise Unavailable(f"{self.path} is no library of these kernels: {error}") from error
        function.restype = returns
        return function

    def arguments(self, call: KernelCall, addresses: Mapping[str, int]) -> object:
        """The arguments of a call as this library takes them.

        Raises:
            Unavailable: the library was built from other sources.
        """
        names = self.entry(f"{call.entry}_fields", ctypes.c_char_p)()
        return call.arguments(tuple(names.decode().split()), addresses)

    def scratch_bytes(self, call: KernelCall, addresses: Mapping[str, int]) -> int:
        """Bytes of scratch that the call needs."""
        measure = self.entry(f"{call.entry}_scratch", ctypes.c_size_t)
        size = measure(self.arguments(call, addresses))
        assert isinstance(size, int)
        return size

    def failure(self) -> str | None:
        """CUDA's words for the last launch that failed."""
        words = self.entry("failure", ctypes.c_char_p)()
        return None if words is None else words.decode()


class Prepared:
    """A call whose arguments exist already, so that a launch costs as little Python as it can."""

    def __init__(
        self, library: KernelLibrary, call: KernelCall, addresses: Mapping[str, int], scratch: int
    ) -> None:
        self._function = library.entry(call.entry)
        self._failure = library.entry("failure", ctypes.c_char_p)
        self._arguments = library.arguments(call, addresses)
        self._scratch = ctypes.c_void_p(scratch)

    def __call__(self, stream: int) -> None:
        """Put the call on a stream; nothing is waited for.

        Raises:
            LaunchError: a launch was refused.
        """
        self._function(self._arguments, self._scratch, ctypes.c_void_p(stream))
        failure = self._failure()
        if failure is not None:
            raise LaunchError(failure.decode())
