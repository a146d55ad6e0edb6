"""What training gained, paired with the base, in units of the base's own spread.

    d(k, i)  = (score(k, i) - base(k, i)) / sd_i base(k, i)    reward k, image i (same prompt and noise)
    gain(k)  = mean_i d(k, i),   standard error sd_i d(k, i) / sqrt(N)
    trained  : the same of d(i) = mean over the row's trained rewards of d(k, i)

The best of a column has the largest gain. Another row is near it when the mean of its paired
differences d_best(i) - d(i) is no larger than their own standard error: over seeds where there are
several, else over prompts. Gains in what a row trained on are compared among rows that trained on the
same rewards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from mixgrpo.report.document import Mark
from mixgrpo.report.statistics import Summary, summarise
from mixgrpo.report.table_spec import EntrySpec, RowSpec
from mixgrpo.report.views import Seeds, View

TRAINED = "trained"
"""The mean over the rewards that a row trained on."""
REFERENCE = "mixgrpo"
"""The cell that the others are compared with, alone or as the end of a name (pick_mixgrpo)."""
Against = Literal["reference", "best", ""]


@dataclass(frozen=True)
class RowGains:
    """One row: its gains by reward and `TRAINED`, and by how much less that is than another row's."""

    row: RowSpec
    entry: EntrySpec
    gains: Mapping[str, Summary]
    marks: Mapping[str, Mark]
    behind_best: Mapping[str, Summary]
    """By the same keys: the best row's gains minus this row's, image by image; not there for the best."""
    behind_reference: Summary | None
    """The reference's gains minus this row's, in what the reference trained on."""


@dataclass(frozen=True)
class ViewGains:
    """Every trained row of a view."""

    view: View
    rows: list[RowGains]
    reference: RowGains | None

    @property
    def against(self) -> Against:
        """What a row is compared with in print."""
        if self.reference is not None and len(self.rows) > 1:
            return "reference"
        return "best" if any(TRAINED in row.behind_best for row in self.rows) else ""


def view_gains(view: View) -> ViewGains:
    """Gains of every row that training made; a row without scores has none."""
    names = [TRAINED, *(column.name for column in view.spec.score_columns)]
    series = {
        name: {r: _series(view, entry, name) for r, _, entry in view.trained_rows()}
        for name in names
    }
    unjudged = {c.name for c in view.spec.score_columns if not view.spec.is_judged(c)}
    marks, behind = {}, {}
    for name in names:
        marks[name], behind[name] = _compared(view, name, {} if name in unjudged else series[name])
    reference = reference_row(view)
    found = {
        r: RowGains(
            row=row,
            entry=entry,
            gains={name: summarise(series[name][r]) for name in names if series[name][r]},
            marks={name: marks[name].get(r, "") for name in names},
            behind_best={name: behind[name][r] for name in names if r in behind[name]},
            behind_reference=_behind_reference(view, entry, reference),
        )
        for r, row, entry in view.trained_rows()
    }
    return ViewGains(
        view, list(found.values()), None if reference is None else found.get(reference)
    )


def reference_row(view: View) -> int | None:
    """Number of the only row that is MixGRPO as the paper sets it; None when none or several are."""
    rows = [
        r
        for r, _, entry in view.trained_rows()
        if entry.cell == REFERENCE or entry.cell.endswith(f"_{REFERENCE}")
    ]
    return rows[0] if len(rows) == 1 else None


def _series(view: View, entry: EntrySpec, name: str) -> Seeds:
    if name != TRAINED:
        return view.gains(entry, name)
    return trained_gains(view, entry, entry.trained)


def trained_gains(view: View, entry: EntrySpec, rewards: Sequence[str]) -> Seeds:
    """Mean of d(k, i) over `rewards`, per image, of the seeds that have all of them."""
    parts = [view.gains(entry, reward) for reward in rewards]
    seeds = [seed for seed in view.spec.seeds if all(seed in part for part in parts)]
    return {seed: pd.concat([part[seed] for part in parts], axis=1).mean(axis=1) for seed in seeds}


def difference(ours: Seeds, theirs: Seeds) -> Summary | None:
    """`ours` minus `theirs` on the same prompt, noise and training seed."""
    both = {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
    return summarise(both) if both else None


def _compared(
    view: View, name: str, series: Mapping[int, Seeds]
) -> tuple[dict[int, Mark], dict[int, Summary]]:
    """Marks of the rows, and how far each is behind the best of those it is compared with."""
    marks: dict[int, Mark] = {}
    behind: dict[int, Summary] = {}
    for rows in comparable(view, name):
        present = [r for r in rows if series.get(r)]
        if len(present) < 2:
            continue
        best = max(present, key=lambda r: summarise(series[r]).mean)
        marks[best] = "best"
        for r in [r for r in present if r != best]:
            found = difference(series[best], series[r])
            if found is not None:
                behind[r] = found
                marks[r] = "near" if found.mean <= (found.error or 0.0) else ""
    return marks, behind


def comparable(view: View, name: str) -> list[list[int]]:
    """Rows that may be compared with each other in column `name`.

    In what they trained on: those that trained on the same; in a sweep, those of one group.
    """
    groups: dict[object, list[int]] = {}
    for r, row, entry in view.trained_rows():
        key = (row.group, tuple(sorted(entry.trained)) if name == TRAINED else ())
        groups.setdefault(key, []).append(r)
    return list(groups.values())


def _behind_reference(view: View, entry: EntrySpec, reference: int | None) -> Summary | None:
    if reference is None or view.of_row[reference] is entry:
        return None
    other = view.of_row[reference]
    rewards = other.trained
    return difference(trained_gains(view, other, rewards), trained_gains(view, entry, rewards))
