"""A table's scores by view, row and reward: whatever a grid shows is looked up here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mixgrpo.errors import UserError
from mixgrpo.report.inputs import BASE_SEED
from mixgrpo.report.scores import Images, Source, per_image, read_scores
from mixgrpo.report.table_spec import EntrySpec, RowSpec, TableSpec, ViewSpec

UNTRAINED_P_MIX = 0.0
Seeds = Mapping[int, pd.Series]
"""seed -> one value per image."""


@dataclass(frozen=True)
class View:
    """One view of a table: which entry each row has in it, and every score."""

    spec: TableSpec
    index: int
    images: Images
    of_row: Mapping[int, EntrySpec] = field(init=False)

    def __post_init__(self) -> None:
        entries = {r: row.entries[self.index] for r, row in enumerate(self.spec.rows)}
        object.__setattr__(self, "of_row", entries)

    @property
    def what(self) -> ViewSpec:
        """Its title, prompts and p_mix."""
        return self.spec.views[self.index]

    def rows(self) -> list[tuple[int, RowSpec, EntrySpec]]:
        """Every row with its number and what it is in this view."""
        return [(r, row, self.of_row[r]) for r, row in enumerate(self.spec.rows)]

    def trained_rows(self) -> list[tuple[int, RowSpec, EntrySpec]]:
        """Rows that training made."""
        return [(r, row, entry) for r, row, entry in self.rows() if entry.trained]

    def bases(self) -> list[str]:
        """The untrained cells that its trained rows are paired with."""
        return list(dict.fromkeys(entry.base for _, _, entry in self.trained_rows()))

    def scores(self, entry: EntrySpec, reward: str) -> Seeds:
        """Of the performance grid."""
        return self._found(source(self.spec, entry, self.what.p_mix), reward)

    def gains(self, entry: EntrySpec, reward: str) -> Seeds:
        """d(k, i) of each seed: the score minus the base's, in units of the base's sd (gains.py)."""
        base = self.base(entry.base, reward)
        found = self._found(source(self.spec, entry, self.what.gains_p_mix), reward)
        if base is None or not found:
            return {}
        sd = spread(base, reward)
        return {seed: (series - base) / sd for seed, series in found.items()}

    def base(self, cell: str, reward: str) -> pd.Series | None:
        """Scores of an untrained cell."""
        return self.images.get((cell, UNTRAINED_P_MIX, BASE_SEED, reward))

    def num_images(self) -> int:
        """How many pictures each row was scored on."""
        return max((len(series) for series in self.images.values()), default=0)

    def _found(self, source: Source, reward: str) -> Seeds:
        keys = {seed: (source.cell, source.p_mix, seed, reward) for seed in source.seeds}
        return {seed: self.images[key] for seed, key in keys.items() if key in self.images}


def read_view(spec: TableSpec, index: int, folder: Path) -> View:
    """`folder`: scores/ of a preset. A score that is not there is left out; a damaged one is an error."""
    view = spec.views[index]
    sources = []
    for row in spec.rows:
        entry = row.entries[index]
        sources.append(Source(entry.base, UNTRAINED_P_MIX, (BASE_SEED,)))
        if spec.kind == "paper":
            sources.append(source(spec, entry, view.p_mix))
        sources.append(source(spec, entry, view.gains_p_mix))
    scores = read_scores(
        folder, sources, rewards=spec.rewards, dataset=view.dataset, split=view.split
    )
    return View(spec, index, per_image(scores))


def source(spec: TableSpec, entry: EntrySpec, p_mix: float) -> Source:
    """Pictures of an entry: an untrained cell has one seed, and its own model makes every step."""
    if not entry.trained:
        return Source(entry.cell, UNTRAINED_P_MIX, (BASE_SEED,))
    return Source(entry.cell, p_mix if entry.p_mix is None else entry.p_mix, spec.seeds)


def spread(base: pd.Series, reward: str) -> float:
    """sd of the base's scores, the unit of every gain. UserError when there is none."""
    sd = float(base.std(ddof=1))
    if not sd > 0:
        raise UserError(
            f"{reward}: the base's {len(base)} scores have no spread, and gains are measured in units of "
            "it. Score more than one prompt, or leave this reward out of the table."
        )
    return sd
