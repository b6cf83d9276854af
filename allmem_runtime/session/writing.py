"""Draw token after token and turn them into text that may be shown."""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal

from allmem_runtime.generation.sampling import Sampling, pick
from allmem_runtime.generation.stopping import StopScanner
from allmem_runtime.session.cursor import Cursor
from allmem_runtime.text.tokenizer import Tokenizer

FinishReason = Literal["", "end", "stop", "length", "cancelled"]


def write(
    cursor: Cursor, tokenizer: Tokenizer, sampling: Sampling, stop: tuple[str, ...]
) -> Generator[str, None, FinishReason]:
    """Feed what waits, then write until there is a reason to stop.

    A drawn token waits like any other and is fed before the next is drawn, so the state holds
    all that was shown, wherever the caller stops. The end token is not fed: what separates turns
    begins with it.

    Args:
        cursor: the state, with at least one token waiting.
        tokenizer: of the same model.
        sampling: how to draw.
        stop: stop strings besides those of ``sampling``.

    Returns:
        Why the text ended.

    Raises:
        SessionStateError: a step failed, or the logits are not finite.
    """
    seed = cursor.place.seed if sampling.seed is None else sampling.seed
    scanner = StopScanner((*sampling.stop, *stop))
    decoder = tokenizer.stream()
    reason: FinishReason = ""
    drawn = 0
    while not reason:
        more = drawn < sampling.max_tokens and not scanner.stopped
        logits = None
        for logits in cursor.feed(last=more):  # noqa: B007
            pass
        if scanner.stopped:
            reason = "stop"
        elif cursor.stop.is_set():
            reason = "cancelled"
        elif not more:
            reason = "length"
        elif logits is None:
            break
        else:
            cursor.check_logits(logits)
            place = cursor.place
            token = pick(logits[-1], sampling, place.recent, place.position, seed)
            if token in cursor.manifest.end_tokens:
                reason = "end"
            else:
                drawn += 1
                cursor.queue([token])
                text = scanner.push(decoder.push(token))
                if text:
                    yield text
    text = scanner.push(decoder.finish()) + scanner.finish()
    if text:
        yield text
    return reason
