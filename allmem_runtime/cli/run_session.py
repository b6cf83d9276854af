"""What ``allmem-run`` does once its options are known: load, read, answer, chat."""

from __future__ import annotations

import dataclasses
from typing import TextIO

from allmem_runtime.cli.conversation import Conversation
from allmem_runtime.cli.opening import arrived
from allmem_runtime.cli.options import DEFAULT_PASSAGES, DEFAULT_PAUSE, RunOptions
from allmem_runtime.cli.prompt_answers import Answerer
from allmem_runtime.cli.reading import Reader, caught_up
from allmem_runtime.cli.resume import Part, plan
from allmem_runtime.cli.signals import Interrupts
from allmem_runtime.cli.terminal_lines import terminal_lines
from allmem_runtime.cli.text_failures import TextFailures
from allmem_runtime.documents.notes import InstallOnce
from allmem_runtime.errors import PassagesError, SourceError, StorageError, UsageError
from allmem_runtime.evaluation import recall_report
from allmem_runtime.evaluation.recall import DEFAULT_PROBES, Recall, measure
from allmem_runtime.model import load
from allmem_runtime.progress import Printer
from allmem_runtime.quantities import format_bytes
from allmem_runtime.session.session import Session
from allmem_runtime.text.sources import Source


class Work:
    """One run of the command, with its model loaded and its session open.

    Args:
        options: the command line.
        out: what is told besides answers.
        interrupts: Ctrl-C.
        resumed: whether the session file exists.
        keeps_text: keep the text of what is read even where no session is saved.

    Attributes:
        unsaved: why what was read is not in the session file; None if it is, or there is none.
    """

    def __init__(
        self,
        options: RunOptions,
        out: Printer,
        interrupts: Interrupts,
        *,
        resumed: bool,
        keeps_text: bool = False,
    ) -> None:
        self._options = options
        self._out = out
        self._interrupts = interrupts
        self.unsaved: StorageError | None = None
        model = load(options.model, options.engine)
        self._sampling = dataclasses.replace(model.sampling, **options.sampling)  # type: ignore[arg-type]
        self._session: Session
        if resumed:
            assert options.session is not None
            # Questions are asked of forks, so the reader needs no copy to undo them.
            self._session = model.open(options.session, undo=False, text=options.text)
        else:
            kept = options.text and (options.session is not None or keeps_text)
            self._session = model.session(undo=False, text=kept and (options.session or True))
        out.event(
            "start",
            model=model.name,
            device=str(model.device),
            device_reason=model.device.why,
            operators=model.operators,
            cuda_graph=model.engine.cuda_graph,
            threads=model.engine.threads,
            prepared=model.engine.prepared is not None,
            notices=model.engine.notices,
            state_bytes=model.state_bytes,
            position=self._session.position,
            resumed=resumed,
        )
        for notice in (model.device.advice, *model.engine.notices):
            if notice:
                out.notice(notice)
        self._failures = TextFailures(self._tell_text_failure)
        self._source_name = ""
        self._system = options.system
        if self._system is not None and self._session.info()["turn"] != "start":
            out.notice("--system opened the conversation when the session began; not given again.")
            self._system = None
        if self._system is not None and not model.chat.has_system:
            out.notice(
                "This model's chat template has no place for a system text; --system opens the "
                "first user turn instead."
            )
        self._answerer = Answerer(
            options.prompts,
            self._sampling,
            out,
            interrupts,
            self._failures,
            passages=options.passages,
            as_json=options.as_json,
            quiet=options.quiet,
        )

    @property
    def position(self) -> int:
        """Tokens that were read."""
        return self._session.position

    def read(self, sources: list[Source], *, may_be_empty: bool, some: bool = False) -> bool:
        """Read what the session has not read yet and save it.

        Args:
            sources: in the order of reading.
            may_be_empty: an empty stream is nothing to complain about.
            some: see ``plan``.

        Returns:
            False if Ctrl-C ended the reading.

        Raises:
            SourceError: a source cannot be read, or not to its end; what was read is saved.
            PassagesError: the text of what was read before cannot be used just now.
        """
        session = self._session
        if sources and session.text_busy:
            raise PassagesError(
                session.text_failure,
                "Reading on would give the text up: wait until it is free, or read on without it "
                "with --no-text.",
            )
        self._failures.look(session)
        reader = Reader(session, self._out, self._interrupts, self._options.session)
        before = _standing(session)
        finished = False
        failure: Exception | None = None
        try:
            finished = self._read_all(reader, sources, may_be_empty, some)
        except (SourceError, StorageError, BrokenPipeError) as error:
            failure = error  # the latter two: nobody takes the answers at a pause
        self._failures.look(session)
        if _standing(session) != before:
            self._save(reader)
        elif failure:
            raise failure
        if not finished:
            self._say_how_to_go_on()
        if failure:
            raise failure
        return finished

    def _read_all(
        self, reader: Reader, sources: list[Source], may_be_empty: bool, some: bool
    ) -> bool:
        options = self._options
        install = InstallOnce(self._out.notice)

        def stop() -> bool:
            return self._interrupts.requested

        if self._session.sources:  # they have to be compared, as of a session made meanwhile
            found = [arrived(source, install, stop) for source in sources]
            sources = [source for source in found if source is not None]
        for part in self._parts(sources, some):
            source = arrived(part.source, install, stop)
            if source is None:
                if stop():
                    return False
                continue
            if source is not part.source:
                part = Part(source, source.pieces())
            self._source_name = part.source.name
            try:
                finished = reader.read(
                    part,
                    system=self._system,
                    pause=(options.pause or DEFAULT_PAUSE) if options.stream else None,
                    on_pause=self._answerer.answer_all,
                    may_be_empty=may_be_empty,
                )
            except SourceError as error:
                if not some:
                    raise
                self._out.notice(f"Left out: {error.message}")
                self._session.drop_unread()  # a file that was not read to its end is read anew
                finished = not stop()
            self._forget_system()
            if not finished:
                return False
        install.end()
        return True

    def _save(self, reader: Reader) -> None:
        """Save; where that fails, what was read can still be asked about before all ends."""
        try:
            reader.save()
        except StorageError as error:
            self.unsaved = error
            self._out.notice(f"What was read is not saved: {error}")

    def meter(self) -> None:
        """Tell how much of what was read the state still holds, unless Ctrl-C came."""
        session, options = self._session, self._options
        rows: list[Recall] = []
        try:
            for row in measure(session, DEFAULT_PROBES, options.passages or DEFAULT_PASSAGES):
                if not rows:
                    self._out.notice(recall_report.HEAD)
                rows.append(row)
                self._out.notice(recall_report.line(row))
                if self._interrupts.requested:
                    return
        except (UsageError, PassagesError) as error:
            self._out.notice(f"Nothing is metered. {self._failures.untold(error)}")
            return
        told = recall_report.sentence(rows)
        self._out.notice(told)
        self._out.event("recall", rows=recall_report.as_values(rows), sentence=told)

    def answer(self) -> None:
        """Answer the prompts, unless Ctrl-C came."""
        if self._options.prompts and not self._interrupts.requested:
            session = caught_up(self._session, self._interrupts, self._source_name)
            self._answerer.answer_all(session, self._system)

    def chat(self, terminal: TextIO) -> None:
        """Talk about what was read until the user leaves."""
        session = caught_up(self._session, self._interrupts, self._source_name, undo=True)
        with terminal_lines(terminal) as lines:
            Conversation(
                session,
                self._sampling,
                self._options.session,
                lines,
                self._system,
                failures=self._failures,
                passages=self._options.passages,
                printer=self._out,
            ).run()

    def _parts(self, sources: list[Source], some: bool) -> list[Part]:
        session = self._session
        if not sources:
            if not session.source.finished:
                self._out.notice(
                    f"The last source was read up to byte {session.source_offset:,}, not to its "
                    "end; name it again to read the rest."
                )
            return []
        found = plan(
            sources,
            session.sources,
            session.unread,
            on_change=self._options.changed,
            live=self._options.stream,
            some=some,
        )
        for notice in found.notices:
            self._out.notice(notice)
        if session.sources:
            states = [
                {
                    "source": item.source.name,
                    "state": item.what,
                    "read_bytes": item.mark.offset if item.mark else 0,
                }
                for item in found.found
            ]
            self._out.event("sources", sources=states)
        return found.parts

    def _tell_text_failure(self, failure: str) -> None:
        self._out.notice(failure)
        self._out.event("text_failure", message=failure)

    def _forget_system(self) -> None:
        if self._session.info()["turn"] != "start":
            self._system = None

    def _say_how_to_go_on(self) -> None:
        unread = len(self._session.unread)
        self._out.event("interrupted", position=self._session.position, unread=unread)
        if unread:
            kept = " and is kept in the session" if self._options.session is not None else ""
            self._out.notice(f"{format_bytes(unread)} more had arrived{kept}.")
        if self._options.session is not None:
            self._out.notice("Stopped. The same command goes on from here.")
        else:
            self._out.notice("Stopped. With --session FILE the reading could go on later.")


def _standing(session: Session) -> tuple[object, ...]:
    """What differs where something was read."""
    return session.position, session.pending, session.unread, session.sources
