"""The resolved experiment: what config/ describes, every name looked up. `load.load` makes it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mixgrpo.config import BASE_CELL, Settings
from mixgrpo.planning.sheets import Column, EvaluationSheet, Figure, PresetSheet, Table
from mixgrpo.provenance import digest, stage_modules


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model that tables and figures show."""

    settings: Settings
    """With seed 0 and no code; `Experiment.settings` has those of one run."""
    trained: bool
    seeds: tuple[int, ...]
    group: str | None = None
    """In a sweep: the cell that a value was tried in."""
    value: float | None = None
    """In a sweep: that value."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything the workflow plans by."""

    preset: str
    seeds: tuple[int, ...]
    cells: dict[str, Cell]
    tables: dict[str, Table]
    """Those of tables.yaml, and `sweep`."""
    figures: dict[str, Figure]
    columns: dict[str, Column]
    sheet: PresetSheet
    evaluation: EvaluationSheet
    config: str
    """Folder of the configuration."""

    @property
    def results(self) -> str:
        """Folder of everything this preset makes."""
        return f"results/{self.preset}"

    def prompts(self, role: str | None, split: str | None) -> str | None:
        """Prompts file of the dataset that plays `role`."""
        if role is None:
            return None
        return f"{self.results}/prompts/{self.sheet.datasets[role].name}_{split}.tsv"

    def settings(self, cell: str, seed: int) -> Settings:
        """Of one run, with the digest of the code that it is planned with; the base runs no training code."""
        entry = self.cells[cell]
        modules = stage_modules(
            "train", models=[entry.settings.model.name], rewards=entry.settings.rewards
        )
        return replace(entry.settings, seed=seed, code=digest(*modules) if entry.trained else "")

    def cells_of_table(self, table: str) -> list[str]:
        """Cells whose scores a table needs, the base among them where gains are measured against it."""
        sheet = self.tables[table]
        names = [row.cell for row in sheet.rows]
        return list(dict.fromkeys([BASE_CELL, *names] if sheet.kind == "gains" else names))

    def runs(self, cells: Iterable[str]) -> list[tuple[str, int]]:
        """(cell, seed) of every run of `cells`."""
        return [(cell, seed) for cell in cells for seed in self.cells[cell].seeds]

    def image_sets(self, cell: str) -> list[tuple[str, str, float]]:
        """(dataset, split, p_mix) that the tables and figures with this cell ask for; the base's p_mix is 0."""
        sheets: list[Table | Figure] = [
            sheet for name, sheet in self.tables.items() if cell in self.cells_of_table(name)
        ]
        sheets += [
            figure
            for figure in self.figures.values()
            if figure.draws == "images" and cell in [row.cell for row in figure.rows]
        ]
        sets = set()
        for sheet in sheets:
            assert sheet.dataset is not None
            assert sheet.p_mix is not None
            dataset = self.sheet.datasets[sheet.dataset].name
            sets.add((dataset, str(sheet.split), sheet.p_mix if self.cells[cell].trained else 0.0))
        return sorted(sets)
