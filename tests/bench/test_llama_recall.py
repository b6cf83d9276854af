"""The worker that asks llama.cpp: what it feeds, discards and moves, with the library stood in."""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

VOCABULARY = 16


class Context:
    """Tokens by position, as llama.cpp's memory has them; a decode says the first token held."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.cells: dict[int, int] = {}
        self.freed = False
        self.fullest = 0

    def decode(self, tokens: list[int]) -> int:
        start = max(self.cells, default=-1) + 1
        for place, token in enumerate(tokens, start):
            self.cells[place] = token
        assert sorted(self.cells) == list(range(len(self.cells)))
        self.fullest = max(self.fullest, len(self.cells))
        return int(len(self.cells) > self.options.n_ctx)

    def remove(self, first: int, end: int) -> bool:
        self.cells = {p: t for p, t in self.cells.items() if not first <= p < end}
        return True

    def add(self, first: int, end: int, delta: int) -> None:
        self.cells = {p + delta if first <= p < end else p: t for p, t in self.cells.items()}


class Library(ModuleType):
    """As much of the package's declarations as the worker calls."""

    GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 = 1, 8, 2
    LLAMA_FLASH_ATTN_TYPE_ENABLED = 1
    llama_token = ctypes.c_int32
    can_shift = True

    def __init__(self) -> None:
        super().__init__("llama_cpp.llama_cpp")
        self.contexts: list[Context] = []
        self.logits = (ctypes.c_float * VOCABULARY)()
        nothing = lambda *given: None  # noqa: E731
        self.llama_log_callback = lambda function: function
        self.llama_log_set = lambda listen, data: setattr(self, "listen", listen)
        self.llama_backend_init = nothing
        self.llama_model_default_params = nothing
        self.llama_model_load_from_file = lambda path, options: "model"
        self.llama_model_get_vocab = lambda model: "vocabulary"
        self.llama_vocab_n_tokens = lambda vocabulary: VOCABULARY
        self.llama_vocab_get_text = lambda vocabulary, token: b"t%d" % token
        self.llama_context_default_params = lambda: SimpleNamespace(flash_attn_type=-1)
        self.llama_free = lambda context: setattr(context, "freed", True)
        self.llama_get_memory = lambda context: context
        self.llama_memory_can_shift = lambda memory: self.can_shift
        self.llama_memory_seq_rm = lambda memory, seq, first, end: memory.remove(first, end)
        self.llama_memory_seq_add = lambda memory, seq, p0, p1, by: memory.add(p0, p1, by)
        self.llama_batch_get_one = lambda tokens, count: list(tokens)[:count]
        self.llama_get_logits_ith = lambda context, place: ctypes.cast(
            self.logits, ctypes.POINTER(ctypes.c_float)
        )

    def llama_init_from_model(self, model: str, options: Any) -> Context:
        self.contexts.append(Context(options))
        self.listen(2, b"llama_context: n_ctx = 7\n", None)
        self.listen(2, b"llama_kv_cache: size =    1.50 MiB (   256 cells,  30 layers)\n", None)
        self.listen(2, b"llama_kv_cache: size =    0.25 MiB (   512 cells,   2 layers)\n", None)
        return self.contexts[-1]

    def llama_decode(self, context: Context, tokens: list[int]) -> int:
        code = context.decode(tokens)
        said = (tokens[-1] + 1) % VOCABULARY
        for token in range(VOCABULARY):
            self.logits[token] = float(token == said)
        return code


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    made, package = Library(), ModuleType("llama_cpp")
    package.llama_cpp, package.__version__ = made, "1"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "llama_cpp", package)
    monkeypatch.setitem(sys.modules, "llama_cpp.llama_cpp", made)
    name = "benchmarks.peers.systems.llama_recall"
    monkeypatch.delitem(sys.modules, name, raising=False)
    yield made
    sys.modules.pop(name, None)


@pytest.fixture
def system(library: Library) -> Any:
    return importlib.import_module("benchmarks.peers.systems.llama_recall").System("x.gguf", 3, 0)


def test_a_whole_context_holds_prompt_and_answer(system: Any, library: Library) -> None:
    told = system.recall([3, 4, 5], ends=[9], most=8, cache="f16", size=0, keep=0)
    assert told["answer"] == [6, 7, 8] and told["held"] == 3 and told["shifts"] == 0
    (context,) = library.contexts
    assert list(context.cells.values()) == [3, 4, 5, 6, 7, 8]
    assert context.options.n_ctx == 3 + 8 and context.options.n_threads == 3
    assert context.options.type_k == context.options.type_v == 1
    assert context.options.flash_attn_type == -1 and context.freed


def test_an_answer_ends_at_its_limit_whose_last_token_is_not_fed(
    system: Any, library: Library
) -> None:
    told = system.recall([3], ends=[9], most=2, cache="q4_0", size=0, keep=0)
    assert told["answer"] == [4, 5] and list(library.contexts[0].cells.values()) == [3, 4]
    assert library.contexts[0].options.type_v == 2
    assert library.contexts[0].options.flash_attn_type == 1


def test_a_shifted_context_keeps_its_first_tokens_and_half_of_the_others(
    system: Any, library: Library
) -> None:
    told = system.recall(list(range(12)), ends=[], most=5, cache="q8_0", size=11, keep=2)
    (context,) = library.contexts
    assert told["held"] == 8 and told["shifts"] == 2
    # 0 … 9, then 0 1 6 … 11 and the answer's 12 and 13, then 14 and 15 after the second discard.
    assert told["answer"] == [12, 13, 14, 15, 0]
    assert [context.cells[place] for place in range(8)] == [0, 1, 10, 11, 12, 13, 14, 15]
    assert context.fullest == 10 and context.options.n_ctx == 11 and context.freed


def test_a_model_whose_context_cannot_be_shifted_is_said(system: Any, library: Library) -> None:
    library.can_shift = False
    with pytest.raises(RuntimeError, match="cannot shift"):
        system.recall([1], ends=[], most=1, cache="f16", size=9, keep=2)
    assert library.contexts[0].freed


def test_bytes_are_those_that_llama_says_of_all_its_caches(system: Any, library: Library) -> None:
    assert system.bytes("f16", 256) == {"bytes": round(1.75 * 1024**2)}
    assert system.bytes("f16", 256) == {"bytes": round(1.75 * 1024**2)}
    assert library.contexts[0].freed


def test_names_are_those_of_its_vocabulary(system: Any) -> None:
    assert system.names([0, 15, 16]) == {"names": ["t0", "t15", None]}
