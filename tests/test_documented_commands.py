"""The documents agree with the commands, the files and each other: help, examples, links."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import click
import pytest

from allmem_runtime.cli import allmem
from allmem_runtime.cli.run import run

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "models", "custom_ops", "tests", ".github")
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.md"))]
)

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def named(paths: list[Path]) -> pytest.MarkDecorator:
    ids = [str(path.relative_to(ROOT)) for path in paths]
    return pytest.mark.parametrize("document", paths, ids=ids)


def prose_of(document: Path) -> str:
    return FENCED.sub("", document.read_text(encoding="utf-8"))


def anchors_of(document: Path) -> set[str]:
    """The names that GitHub gives to headings: lower case, no punctuation, hyphens for spaces."""
    headings = HEADING.findall(prose_of(document))
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_the_page_on_commands_is_what_the_commands_say():
    page = runpy.run_path(str(ROOT / "docs" / "commands.py"))
    assert page["DOCUMENT"].read_text(encoding="utf-8") == page["text"](), "run `make docs`"


@named(DOCUMENTS)
def test_links_lead_to_files_and_headings_that_exist(document):
    for link in LINK.findall(prose_of(document)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors_of(target), link


def test_places_in_the_glossary_exist():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for row in rows:
        for path in re.findall(r"`([\w./]+)`", row.rsplit(" | ", 1)[1]):
            assert (ROOT / path).exists() or (ROOT / "allmem_runtime" / path).exists(), row


def commands_in(document: Path) -> list[list[str]]:
    """The words of each call of ours in fenced blocks; what is in brackets counts as given."""
    text = document.read_text(encoding="utf-8")
    blocks = [body for kind, body in FENCED.findall(text) if kind in ("", "console", "sh")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    calls = []
    for line in lines:
        bare = re.sub(r"[\[\]]", "", line.strip().removeprefix("$ "))
        for part in re.split(r" (?:\||&&)(?: |$)", bare):
            if re.match(r"allmem(-run)? (?!does)", part):
                calls.append(shlex.split(part, comments=True))
    return calls


@named([path for path in DOCUMENTS if path.name != "commands.md" and commands_in(path)])
def test_commands_in_examples_take_the_options_they_are_shown_with(document, monkeypatch):
    # The files in an example are not there; nothing but the command line is looked at.
    monkeypatch.setattr(click.Path, "convert", lambda self, value, parameter, context: value)
    for program, *arguments in commands_in(document):
        command: click.Command = run if program == "allmem-run" else allmem
        while isinstance(command, click.Group):
            name = arguments.pop(0)
            found = command.get_command(click.Context(command), name)
            assert found is not None, f"{program} {name}"
            command = found
        command.make_context(program, arguments)  # refuses what the command would refuse
