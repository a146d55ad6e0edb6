"""Score files: csv whose first line is a comment with what the scores depend on; and scores in the making.

Scores are made in shards. Each is on disk before the next begins, beside the file that it will be part of, so
that an interrupted job goes on where it stopped.
"""

import csv
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mixgrpo.errors import UserError
from mixgrpo.files import atomic, write_text

SHARD = 64
"""Images scored at a time."""


def write_table(
    path: Path, facts: dict[str, Any], columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """A csv whose first line is a comment with `facts`."""
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        file.write(f"# {json.dumps(facts, sort_keys=True)}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_table(path: Path) -> tuple[dict[str, Any], list[dict[str, str]]] | None:
    """Facts and rows of what `write_table` wrote; None when there is no such file, or another one."""
    try:
        with path.open(newline="") as file:
            facts = json.loads(file.readline().removeprefix("# "))
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, ValueError, csv.Error):
        return None
    whole = all(None not in row and None not in row.values() for row in rows)
    return (facts, rows) if isinstance(facts, dict) and whole else None


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean of the scores and its standard error, which a single score does not have.

    >>> mean_and_error([1.0, 3.0])
    (2.0, 1.0)
    """
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def score_in_shards(
    path: Path,
    key: str,
    shards: Sequence[range],
    score: Callable[[range], Sequence[float]],
    *,
    done: Callable[[int], object],
) -> list[float]:
    """Scores of all images of `shards`, those of interrupted jobs under the same key included.

    path: the partial file, which stays until `path.unlink`. score: of one shard's images. done: told how many more
    images are scored.
    """
    found = _read_partial(path, key)
    write_text(path, "".join([f"# {key}\n", *(f"{i},{s!r}\n" for i, s in found.items())]))
    for shard in shards:
        if not all(i in found for i in shard):
            scores = dict(zip(shard, score(shard), strict=True))
            _append(path, scores)
            found |= scores
        done(len(shard))
    return [found[i] for shard in shards for i in shard]


def partial(path: Path) -> Path:
    """Where the scores are kept while `path` is being made."""
    return path.with_name(f".{path.name}.part")


def _append(path: Path, scores: dict[int, float]) -> None:
    try:
        with path.open("a") as file:
            file.writelines(f"{i},{score!r}\n" for i, score in scores.items())
    except OSError as error:
        raise UserError(
            f"{path}: could not be written ({error}). What was scored before is kept: free some space or fix the "
            "permissions, and rerun."
        ) from None


def _read_partial(path: Path, key: str) -> dict[int, float]:
    try:
        head, *lines = path.read_text().splitlines(keepends=True)
    except (OSError, ValueError):
        return {}
    if head != f"# {key}\n":
        return {}
    found = {}
    for line in lines:
        index, _, score = line.partition(",")
        if line.endswith("\n") and index.isdecimal():  # the last line of a killed job may be torn
            try:
                found[int(index)] = float(score)
            except ValueError:
                continue
    return found
