"""Documents that are damaged, locked or meant to do harm: one line each, and nothing else."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path

import document_samples as samples
import pytest

from allmem_runtime.child_process import command, environment
from allmem_runtime.documents import extraction, kinds
from allmem_runtime.documents.opening import open_any
from allmem_runtime.errors import SourceError, StorageError
from allmem_runtime.text.sources import MissingSourceError

KEYS = samples.STORY[1]


def text_of(path: Path, told: list[str] | None = None) -> str:
    source = open_any(str(path), io.BytesIO(), "", (told if told is not None else []).append)
    return b"".join(source.pieces()).decode()


def refusal(folder: Path, data: bytes, name: str = "file") -> str:
    (folder / name).write_bytes(data)
    with pytest.raises(SourceError) as caught:
        text_of(folder / name)
    assert "\n" not in str(caught.value) and caught.value.hint
    return caught.value.message


def locked_zip() -> bytes:
    data = bytearray(samples.zipped({"a.txt": KEYS.encode()}))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + at] |= 1
    return bytes(data)


def nested(depth: int) -> bytes:
    data = samples.zipped({"a.txt": KEYS.encode()})
    for _ in range(depth):
        data = samples.zipped({"in.zip": data, "b.txt": b"More."})
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(samples.encrypted_pdf(), "file is encrypted.", id="locked PDF"),
        pytest.param(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(500), "file is damaged", id="no PDF"),
        pytest.param(samples.pdf([[], []]), "without text", id="PDF of pictures"),
        pytest.param(locked_zip(), "a.txt is encrypted; left out", id="locked archive"),
        pytest.param(samples.book({"A": KEYS})[:-60], "is damaged", id="cut book"),
        pytest.param(samples.PACKED["gzip"](KEYS.encode() * 99)[:-20], "is damaged", id="cut gzip"),
        pytest.param(samples.tarred({"a.txt": bytes(999)})[:700], "is damaged", id="cut tar"),
        pytest.param(
            samples.odt("Keys", "&x;", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
            "declares entities", id="entity of a file",
        ),
        pytest.param(
            samples.PACKED["bzip2"](b"many words " * (7 << 20)), "unpacks to more than 64 MiB",
            id="bomb",
        ),
        pytest.param(b'{"cells": [{"cell_type": "code"' + b"[" * 9000, "is damaged", id="notebook"),
        pytest.param(samples.page("<div>" * 3000), "without text", id="empty page"),
        pytest.param(samples.zipped({"xl/workbook.xml": b"<a/>", "[Content_Types].xml": b"<a/>"}),
                     "of a kind that is not read", id="spreadsheet"),
    ],
)  # fmt: skip
def test_document_that_cannot_be_read_is_told_in_one_line(
    tmp_path: Path, data: bytes, said: str
) -> None:
    assert said in refusal(tmp_path, data)


def test_what_is_declared_small_does_not_unpack_to_more(tmp_path: Path) -> None:
    data = bytearray(samples.zipped({"a.txt": b"many words " * 100_000}))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(signature) + at
        data[start : start + 4] = (10).to_bytes(4, "little")
    assert "a.txt is damaged" in refusal(tmp_path, bytes(data))


def test_archives_within_archives_end_at_some_depth_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(nested(6))
    told: list[str] = []
    text = text_of(tmp_path / "file", told)
    assert "More." in text and KEYS not in text
    assert len(told) == 1 and "more than 3 deep" in told[0]


def test_names_that_climb_out_of_an_archive_and_links_are_told(tmp_path: Path) -> None:
    files = {"../../evil.txt": b"x", "/etc/evil": b"x", "good.txt": KEYS.encode()}
    inner = zipfile.ZipInfo("link")
    inner.external_attr = 0o120777 << 16
    (tmp_path / "a.zip").write_bytes(samples.zipped(files))
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr(inner, "/etc/passwd")
    (tmp_path / "a.tar").write_bytes(samples.tarred(files, {"link": "/etc/passwd"}))
    for name in ("a.zip", "a.tar"):
        told: list[str] = []
        text = text_of(tmp_path / name, told)
        assert KEYS in text and "root:" not in text
        assert sorted(told) == [
            f"{name}: ../../evil.txt has a name that leads out of the archive; left out.",
            f"{name}: /etc/evil has a name that leads out of the archive; left out.",
            f"{name}: link is a link; left out.",
        ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "a.zip"]


def test_a_bad_file_of_an_archive_takes_no_other_with_it(tmp_path: Path) -> None:
    files = {"a.pdf": b"%PDF-1.7 nothing", "b.png": b"\x89PNG" + bytes(50), "c.txt": KEYS.encode()}
    (tmp_path / "a.zip").write_bytes(samples.zipped(files))
    told: list[str] = []
    assert KEYS in text_of(tmp_path / "a.zip", told)
    assert [line.partition(" is ")[0] for line in told] == ["a.zip: a.pdf", "a.zip: b.png"]


def test_a_library_that_is_missing_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pypdfium2.py").write_text("raise ModuleNotFoundError(name='pypdfium2')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "a.pdf"
    path.write_bytes(samples.pdf([[KEYS]]))
    with pytest.raises(SourceError, match="PDF document, and pypdfium2 is not installed") as caught:
        text_of(path)
    assert "pip install 'allmem-runtime[documents]'" in caught.value.hint


def test_what_only_a_missing_library_reads_is_left_out_of_an_archive_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("pypdfium2", "resiliparse"):
        (tmp_path / f"{library}.py").write_text(f"raise ModuleNotFoundError(name='{library}')")
    monkeypatch.syspath_prepend(tmp_path)
    letter = samples.mail("Keys", KEYS).replace(b"plain; charset", b"html; charset")
    files = {"a.pdf": samples.pdf([[KEYS]]), "b.txt": b"The others go on."}
    for data, kept, left in (
        (samples.zipped(files), "The others", "a.pdf is left out, as pypdfium2 is not installed"),
        (samples.tarred(files), "The others", "a.pdf is left out, as pypdfium2 is not installed"),
        (letter, "What came", "what a letter says is left out, as resiliparse is not installed"),
    ):
        (tmp_path / "file").write_bytes(data)
        told: list[str] = []
        assert kept in text_of(tmp_path / "file", told)
        assert told == [f"file: {left}.", extraction.INSTALL]
    (tmp_path / "file").write_bytes(samples.zipped({"a.pdf": files["a.pdf"]}))
    with pytest.raises(extraction.MissingLibraryError, match="pypdfium2 is not ins") as caught:
        text_of(tmp_path / "file")
    assert caught.value.hint == extraction.INSTALL


def test_a_reading_that_crashes_or_talks_nonsense_is_an_error_of_its_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(samples.pdf([[KEYS]]))
    for program in (
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "print('no JSON')",
        "import time; print('no JSON', flush=True); time.sleep(99)",
        "print('[1]')",
        "print('{\"page\": -1}')",
        "print('{\"text\": 3}')",
        'print(\'{"text": "cut"}\')',
    ):
        (tmp_path / "broken.py").write_text(program)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(extraction, "_CHILD", "broken")
        with pytest.raises(SourceError, match="a.pdf cannot be read: reading it fails"):
            text_of(path)


@pytest.mark.parametrize(
    ("does", "allowed"),
    [
        ("open('/dev/null', 'w')", False),
        ("__import__('socket').socket()", False),
        ("__import__('subprocess').run(['true'])", False),
        ("__import__('os').system('true')", False),
        ("list(range(10))", True),
        ("bytearray(3 << 30)", False),
    ],
)
def test_what_reads_documents_can_open_no_network_and_write_no_file(
    tmp_path: Path, does: str, allowed: bool
) -> None:
    module = tmp_path / "allmem_try.py"
    module.write_text(
        "from allmem_runtime.documents import child\nimport allmem_runtime.documents as d, sys\n"
        "def extract(*a):\n    from allmem_runtime.documents.parts import Text\n"
        f"    {does}\n    yield Text('done')\n"
        "sys.modules['allmem_runtime.documents.probe'] = sys.modules[__name__]\nchild.main()\n"
    )
    task = {"module": "probe", "name": "a", "most": 1 << 20,
            "limits": {"cpu_seconds": 20, "template_seconds": 0, "wall_seconds": 99,
                       "memory": 1 << 30}}  # fmt: skip
    surroundings = environment()
    surroundings["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{surroundings['PYTHONPATH']}"
    done = subprocess.run(
        command("allmem_try", json.dumps(task)), input=b"", stdout=subprocess.PIPE,
        env=surroundings, check=False,
    )  # fmt: skip
    assert ({"end": True} in [json.loads(line) for line in done.stdout.splitlines()]) == allowed


def test_two_files_of_one_name_in_an_archive_are_both_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "It was red.")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.txt", "It was blue.")
    assert text_of(tmp_path / "a.zip").split() == ["It", "was", "red.", "It", "was", "blue."]


def test_a_file_that_is_packed_in_an_unknown_way_is_not_called_damaged(tmp_path: Path) -> None:
    data = bytearray(samples.zipped({"a.txt": KEYS.encode(), "b.txt": b"The other one."}))
    for signature, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        first = data.index(signature)
        data[first + at : first + at + 2] = (97).to_bytes(2, "little")
    (tmp_path / "a.zip").write_bytes(data)
    told: list[str] = []
    assert "The other one." in text_of(tmp_path / "a.zip", told)
    assert "packed in a way that is not known here" in " ".join(told)
    assert "damaged" not in " ".join(told)


def test_a_letter_that_cannot_be_decoded_takes_no_other_with_it(tmp_path: Path) -> None:
    first = b"From a@b.org Mon Nov 30 10:00:00 2026\n"
    for charset in (b"idna", b"punycode", b"rot13"):
        bad = b"From: Bo\nContent-Type: text/plain; charset=%s\n\nRiver ..\xff\n\n" % charset
        data = first + bad + first + samples.mail("Keys", KEYS)
        (tmp_path / "m.mbox").write_bytes(data)
        assert "River .." in text_of(tmp_path / "m.mbox")
        assert KEYS in text_of(tmp_path / "m.mbox")


def test_a_letter_that_the_library_fails_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from allmem_runtime.documents import mailbox
    from allmem_runtime.documents.parts import Budget, Note, Text

    def letter(data: bytes, budget: Budget, depth: int) -> list[Text]:
        if b"bad" in data:
            raise IndexError("no part")
        return [Text("good")]

    monkeypatch.setattr(mailbox, "letter", letter)
    file = io.BytesIO(b"From a\nbad\n\nFrom b\nfine\n")
    assert list(mailbox.extract(file, "m", Budget(999), 0)) == [
        Note("a letter is damaged (no part); left out from there on"), Text("good"),
    ]  # fmt: skip


def test_a_damaged_page_of_a_book_takes_no_other_with_it(tmp_path: Path) -> None:
    data = bytearray(samples.book({"One": "The river went.", "Two": KEYS}))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        member = archive.getinfo("OPS/text/c0.xhtml")
    data[member.header_offset + 30 + len(member.filename) + 5] ^= 0xFF
    (tmp_path / "b.epub").write_bytes(data)
    told: list[str] = []
    assert KEYS in text_of(tmp_path / "b.epub", told)
    assert len(told) == 1 and "OPS/text/c0.xhtml" in told[0] and "left out" in told[0]


def test_more_documents_are_read_than_files_can_be_open(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    names = [tmp_path / f"{number}.html" for number in range(14)]
    for name in names:
        name.write_bytes(samples.page(f"<p>This is {name.stem}.</p>"))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/dev/fd")}
    free = [number for number in range(len(taken) + 10) if number not in taken][:10]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1] + 1, before[1]))
    try:
        sources = [open_any(str(name), io.BytesIO(), "", print) for name in names]
        texts = [b"".join(source.pieces()) for source in sources]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert texts == [f"This is {name.stem}.\n".encode() for name in names]


def test_no_room_for_the_text_of_a_document_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from allmem_runtime.documents import spool

    def full() -> io.BytesIO:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.html").write_bytes(samples.page("<p>Words.</p>"))
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        text_of(tmp_path / "a.html")
    assert "TMPDIR" in caught.value.hint


def test_document_that_went_away_before_it_is_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingSourceError, match=r"gone.pdf cannot be read: No such file"):
        extraction.extract(tmp_path / "gone.pdf", kinds.KINDS[0], "gone.pdf")
