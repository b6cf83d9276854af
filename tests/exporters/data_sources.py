"""A tiny tokenizer with a chat template, and tiny sources, for tests of training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def checkpoint(folder: Path) -> Path:
    """A folder with a tokenizer whose tokens are bytes, and a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(list(CONTROL))
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def sentence(number: int) -> str:
    """Long enough to be told apart from others, and of a length of its own."""
    return (
        f"Paragraph {number} tells in so many words what happened in the year {1000 + number}. " * 2
    )


def hotpotqa(path: Path, questions: int) -> Path:
    """Questions of which neighbors share a paragraph."""
    items: list[dict[str, Any]] = [
        {
            "question": f"What happened in {1000 + n}?",
            "answer": f"year {1000 + n}",
            "supporting_facts": [[f"T{n}", 0]],
            "context": [[f"T{k}", [sentence(k)]] for k in (n, n + 1, 1000 + n)],
        }
        for n in range(questions)
    ]
    path.write_text(json.dumps(items))
    return path


def squad(path: Path, articles: int) -> Path:
    """Articles of three paragraphs with a question that has an answer and one that has none."""
    data = [
        {
            "title": f"Article {a}",
            "paragraphs": [
                {
                    "context": sentence(10 * a + p),
                    "qas": [
                        {"question": "Why?", "is_impossible": True, "answers": []},
                        {
                            "question": f"What is told of {1000 + 10 * a + p}?",
                            "is_impossible": False,
                            "answers": [{"text": f"{1000 + 10 * a + p}"}],
                        },
                    ],
                }
                for p in range(3)
            ],
        }
        for a in range(articles)
    ]
    path.write_text(json.dumps({"data": data}))
    return path


def texts(folder: Path, count: int) -> Path:
    folder.mkdir()
    for n in range(count):
        body = "\n\n".join(sentence(5000 + 40 * n + k) for k in range(20))
        (folder / f"{n}.txt").write_text(body)
    return folder
