"""How far a job is, read from the progress bar that ends its log."""

import re
from dataclasses import dataclass
from pathlib import Path

BAR = re.compile(
    r"(?:(?P<name>[^\r\n:|]+): +)?\d+%\|[^|]*\| (?P<done>\d+)/(?P<total>\d+)"
    r" \[[\d:]+<(?P<left>[\d:?]+), +[\d.?]+(?:s/(?P<slow_unit>[a-z]+)|(?P<unit>[a-z]+)/s)"
)
"""A state of tqdm's bar, such as ` 38%|###   | 23/60 [00:10<00:16,  2.20iteration/s, ...]`."""
TAIL = 8192
"""Bytes of a log that hold its last bar."""


@dataclass(frozen=True)
class Progress:
    """The last state of a bar."""

    name: str
    """What the bar is called, where a job has several; else empty."""
    done: int
    total: int
    unit: str
    seconds_left: int | None

    def __str__(self) -> str:
        """In words.

        >>> str(Progress("", 23, 60, "iteration", 25))
        '23 of 60 iterations, about 25 s left'
        """
        name = f"{self.name}: " if self.name else ""
        state = f"{name}{self.done} of {self.total} {self.unit}s"
        if self.done == self.total:
            return f"{state}, finishing"
        return (
            state if self.seconds_left is None else f"{state}, about {span(self.seconds_left)} left"
        )


def read_progress(log: Path) -> Progress | None:
    """From the last bar in `log`; None when it has none, or is not there."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    bars = list(BAR.finditer(text))
    if not bars:
        return None
    bar = bars[-1]
    return Progress(
        name=(bar["name"] or "").strip(),
        done=int(bar["done"]),
        total=int(bar["total"]),
        unit=bar["unit"] or bar["slow_unit"],
        seconds_left=seconds(bar["left"]),
    )


def seconds(clock: str) -> int | None:
    """Of `m:s` or `h:m:s`; None for the `?` of a bar that has just begun.

    >>> seconds("01:05"), seconds("?")
    (65, None)
    """
    total = 0
    for part in clock.split(":"):
        if not part.isdecimal():
            return None
        total = 60 * total + int(part)
    return total


def span(seconds: float) -> str:
    """A time as people say it.

    >>> [span(25), span(100), span(7200)]
    ['25 s', '2 min', '2.0 h']
    """
    if seconds < 90:
        return f"{round(seconds)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
