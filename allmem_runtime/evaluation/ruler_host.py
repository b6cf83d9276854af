"""Runs one prompt generator of nvidia-long-context-eval in a process of its own.

    python -m allmem_runtime.evaluation.ruler_host TOKENIZER.json SCRIPT LENGTHS [ITS ARGUMENTS…]

The generators are scripts that want large packages for small things. Here they get the same
things without them: the tokenizer of the model instead of a hub's, a progress bar that draws
nothing, sentences cut by the ``punkt`` package with NLTK's own English model instead of NLTK and
a download, and one value of the zeta function instead of SciPy, where SciPy is not installed.

A generator that cannot make a prompt fit tries forever; that is noticed here and ends the
process with ``STUCK``, the length and the number of the sample on standard error.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import random
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from allmem_runtime.text.segments import Segmenter
from allmem_runtime.text.tokenizer import Tokenizer

STUCK = 75
MISSING = 76
NO_SAMPLE = -1
"""In place of a number: no sample of this length can be made."""
_TRIES = 200
"""Prompts in a row that were too long before a generator counts as stuck; an honest search for
the longest prompt that fits tries fewer."""
_SEGMENTS = 4096
"""Of a text that are remembered, some eight million characters."""
_SILENT_SECONDS = 20.0
"""Processor time without a prompt before a generator counts as caught in an error of its own."""


class Watch:
    """Ends the process when its generator goes in circles.

    Attributes:
        sample: number of the prompt that is being made.
    """

    def __init__(self) -> None:
        self._length = self._limit = sys.maxsize
        self._over = 0
        self._last = time.process_time()
        self.sample = 0

    def start(self) -> None:
        """Watch for silence as well: an error that is swallowed again and again."""
        threading.Thread(target=self._listen, daemon=True).start()

    def begin(self, length: int, answer: int) -> None:
        """From now on prompts and answers of this length are made."""
        self._length, self._limit = length, length - answer
        self._over = self.sample = 0
        self._last = time.process_time()

    def saw(self, tokens: int) -> None:
        """A prompt with this many tokens was tried."""
        self._last = time.process_time()
        self._over = self._over + 1 if tokens > self._limit else 0
        if self._over > _TRIES:
            self._end(self.sample)

    def _listen(self) -> None:
        while True:
            time.sleep(1.0)
            if time.process_time() - self._last > _SILENT_SECONDS:
                self._end(NO_SAMPLE)

    def _end(self, sample: int) -> None:
        sys.stderr.write(f"\n{self._length} {sample}\n")
        sys.stderr.flush()
        # The generators catch everything, so no exception would leave their loops.
        os._exit(STUCK)


class CountingTokenizer:
    """What the generators ask of a tokenizer.

    They try one length after another of nearly the same text, so the tokens of its segments are
    remembered.
    """

    def __init__(self, tokenizer: Tokenizer, watch: Watch) -> None:
        self._segment_tokens = functools.lru_cache(_SEGMENTS)(tokenizer.encode_text)
        self._watch = watch

    def text_to_tokens(self, text: str) -> list[int]:
        """The tokens of a text, as the runtime would read it."""
        segmenter = Segmenter()
        segments = (*segmenter.push(text), *segmenter.flush())
        tokens = [token for part in segments for token in self._segment_tokens(part.text)]
        self._watch.saw(len(tokens))
        return tokens


def main(arguments: list[str]) -> None:
    """Run a generator once for each length; the arguments are those of the command line."""
    path, script, lengths, *rest = arguments
    watch = Watch()
    tokenizer = CountingTokenizer(Tokenizer.from_file(Path(path)), watch)
    _stand_ins(tokenizer, watch)
    limits = [int(length) for length in lengths.split(",")]
    save = Path(_value(rest, "--save_dir"))
    sys.argv = [script, *rest, "--max_seq_length", str(limits[0])]
    sys.path.insert(0, str(Path(script).parent))  # they import their neighbors
    try:
        # As a module and not as a script, because making its list of words takes half a minute.
        generator = _load(script)
        watch.start()
        for limit in limits:
            watch.begin(limit, int(_value(rest, "--tokens_to_generate")))
            generator.args.max_seq_length = limit
            generator.args.save_dir = save / str(limit)
            _seed(generator.args.random_seed)
            generator.main()
    except ModuleNotFoundError as error:
        sys.stderr.write(f"\n{error.name}\n")
        sys.exit(MISSING)


def _load(script: str) -> Any:
    spec = importlib.util.spec_from_file_location("generator", script)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(script, name=script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _seed(seed: int) -> None:
    """As the scripts do before they make anything."""
    random.seed(seed)
    np.random.seed(seed)


def _stand_ins(tokenizer: CountingTokenizer, watch: Watch) -> None:
    for name in ("tokenizer", "long_context_eval.data.tokenizer"):
        _module(name, select_tokenizer=lambda *_: tokenizer)

    def tqdm(items: Iterable[Any], **_: Any) -> Iterator[Any]:
        for watch.sample, item in enumerate(items):
            yield item

    _module("tqdm", tqdm=tqdm)
    if importlib.util.find_spec("punkt") is not None:

        def sent_tokenize(text: str, language: str = "english") -> list[str]:
            return list(importlib.import_module("punkt").sent_tokenize(text, language))

        _module("nltk", tokenize=_module("nltk.tokenize", sent_tokenize=sent_tokenize))
    if importlib.util.find_spec("scipy") is None:
        _module("scipy", special=_module("scipy.special", zeta=zeta))


def zeta(x: float) -> float:
    """Riemann's zeta function for x > 1, by Euler and Maclaurin (DLMF 25.2.9), to rounding."""
    n = 30
    total = sum(k**-x for k in range(1, n))
    tail = n ** (1 - x) / (x - 1) + n**-x / 2
    rising = x * (x + 1) * (x + 2)
    correction = x * n ** (-x - 1) / 12 - rising * n ** (-x - 3) / 720
    correction += rising * (x + 3) * (x + 4) * n ** (-x - 5) / 30240
    return float(total + tail + correction)


def _module(name: str, **contents: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module
    return module


def _value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


if __name__ == "__main__":
    main(sys.argv[1:])
