"""Says where a window holds a whole prompt, so that nothing is left for a memory to show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from allmem_runtime.evaluation.rows import Group


def notices(groups: Sequence[Group], longest: Mapping[str, int]) -> Iterator[str]:
    """A line for each model whose window is not smaller than what it reads.

    Args:
        groups: the rows.
        longest: tokens of the longest prompt, by column.
    """
    for group in groups:
        manifest = group.package.manifest
        reach = manifest.window + manifest.sinks
        inside = [column for column, tokens in longest.items() if tokens <= reach]
        names = " and ".join(repr(row.name) for row in group.rows)
        size = f"a window of {manifest.window:,} and {manifest.sinks:,} sinks"
        most = max((longest[column] for column in inside), default=0)
        if inside and len(inside) == len(longest):
            yield (
                f"notice: {names}: {size} hold every prompt whole (at most {most:,} tokens), as "
                "full attention does; nothing lies beyond"
            )
        elif inside:
            yield (
                f"notice: {names}: {size} hold the prompts of {', '.join(inside)} whole (at most "
                f"{most:,} tokens); nothing lies beyond there"
            )
        elif any(row.name.lower().startswith("full") for row in group.rows):
            yield (
                f"notice: {names}: {size} hold no prompt whole (up to {max(longest.values()):,} "
                "tokens), so this is not full attention"
            )
