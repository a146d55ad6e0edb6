"""The resolved experiment: what config/ describes, every name looked up. `load.load` makes it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from mixgrpo.config import Settings
from mixgrpo.planning.cost_sheets import JobSheet
from mixgrpo.planning.sheets import (
    Column,
    EvaluationSheet,
    Figure,
    PresetSheet,
    Table,
)
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """Everything the workflow plans by. Compared by identity, so that what is made of it can be cached."""

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
        """Of one run, with the digest of the code that it is planned with; an untrained cell runs no training code."""
        entry = self.cells[cell]
        modules = stage_modules(
            "train", models=[entry.settings.model.name], rewards=entry.settings.rewards
        )
        return replace(entry.settings, seed=seed, code=digest(*modules) if entry.trained else "")

    def job(self, rule: str, wildcards: Mapping[str, str]) -> JobSheet:
        """What a job of `rule` needs: as the preset has it for its model, else for the rule, else little."""
        cell = wildcards.get("cell")
        model = self.model(cell) if cell in self.cells else wildcards.get("model", "")
        jobs = self.sheet.jobs
        return jobs.get(f"{rule} {model}") or jobs.get(rule) or JobSheet()

    def model(self, cell: str) -> str:
        """Name of the cell's base model."""
        return self.cells[cell].settings.model.name

    def base_of(self, cell: str) -> str:
        """The untrained cell of the same model, which gains are measured against."""
        return self._bases[self.model(cell)]

    def cells_of_table(self, table: str) -> list[str]:
        """Cells whose scores a table needs: those of its rows, and their bases."""
        rows = self.tables[table].rows
        return self._with_bases(name for row in rows for name in row.names)

    def cells_of_figure(self, figure: str) -> list[str]:
        """Cells whose scores a figure needs."""
        return self._with_bases(name for row in self.figures[figure].rows for name in row.names)

    def runs(self, cells: Iterable[str]) -> list[tuple[str, int]]:
        """(cell, seed) of every run of `cells`."""
        return [(cell, seed) for cell in cells for seed in self.cells[cell].seeds]

    def timed_cells(self, model: str) -> list[str]:
        """Trained cells of a model whose cost is shown somewhere, measured side by side."""
        shown: list[Table | Figure] = [self.tables[name] for name in self.cost_tables]
        shown += [f for f in self.figures.values() if "overhead" in f.reads]
        names = dict.fromkeys(name for sheet in shown for row in sheet.rows for name in row.names)
        return [name for name in names if self.cells[name].trained and self.model(name) == model]

    @property
    def cost_tables(self) -> list[str]:
        """Tables whose cells are timed."""
        asked = self.sheet.overhead.tables
        return [n for n, table in self.tables.items() if table.needs_overhead or n in asked]

    def spread_cell(self, model: str) -> str:
        """The trained cell of a model whose sampling the spread of images is measured with."""
        figures = (f for f in self.figures.values() if "spread" in f.reads)
        names = (row.names[0] for figure in figures for row in figure.rows)
        return next(n for n in names if self.cells[n].trained and self.model(n) == model)

    def image_sets(self, cell: str) -> list[tuple[str, str, float]]:
        """(dataset, split, p_mix) that tables and figures ask of this cell; the base's p_mix is 0."""
        return sorted(self._image_sets.get(cell, ()))

    @cached_property
    def _bases(self) -> dict[str, str]:
        return {self.model(name): name for name, cell in self.cells.items() if not cell.trained}

    @cached_property
    def _image_sets(self) -> dict[str, set[tuple[str, str, float]]]:
        found: dict[str, set[tuple[str, str, float]]] = {name: set() for name in self.cells}

        def ask(cell: str, role: str | None, split: str | None, p_mix: float | None) -> None:
            assert role is not None
            assert p_mix is not None
            share = p_mix if self.cells[cell].trained else 0.0
            found[cell].add((self.sheet.datasets[role].name, str(split), share))

        for table in self.tables.values():
            for view, row in product(table.test_sets, table.rows):
                cell = row.names[view.cell]
                shares = (table.p_mix, table.gains_p_mix) if row.p_mix is None else (row.p_mix,)
                for p_mix in shares:
                    ask(cell, view.dataset, table.split, p_mix)
                ask(self.base_of(cell), view.dataset, table.split, 0.0)
        for figure in self.figures.values():
            for row in figure.rows if {"images", "scores"} & {*figure.reads} else ():
                share = figure.p_mix if row.p_mix is None else row.p_mix
                ask(row.names[0], figure.dataset, figure.split, share)
                if "scores" in figure.reads:
                    ask(self.base_of(row.names[0]), figure.dataset, figure.split, 0.0)
        return found

    def _with_bases(self, cells: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(name for cell in cells for name in (self.base_of(cell), cell)))
