"""What a preset that needs GPUs costs, before it starts: GPU-hours of what is to be done, of each table and each cell.

By recorded times alone; a job whose time nobody knows is named, not guessed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.sheets import SWEEP, Figure, Table
from mixgrpo.planning.times import Jobs, known_seconds

COSTLY = ("embed", "train", "generate", "score", "overhead", "spread")
"""Rules that may run on GPUs."""
OF_A_RUN = ("train", "generate", "score")
"""Those that run once for each run of a cell."""
FIGURES = "figures"
"""What the cells that figures show stand under, after the tables."""
SHOWN_TABLES = 3
"""So many of the tables that share a cell are named."""


def needs_gpus(experiment: Experiment) -> bool:
    """Whether any job of the preset asks for a GPU."""
    return any(job.gpu for job in experiment.sheet.jobs.values())


def gpu_hours(experiment: Experiment, jobs: Jobs) -> tuple[float, int, int]:
    """Of `jobs`: the GPU-hours that are known, how many jobs they are, and of how many more nobody knows the time."""
    hours, known, unknown = 0.0, 0, 0
    for rule, wildcards in jobs:
        gpus = experiment.job(rule, wildcards).gpu
        if rule not in COSTLY or not gpus:
            continue
        seconds = known_seconds(experiment, rule, wildcards)
        known, unknown = known + (seconds is not None), unknown + (seconds is None)
        hours += gpus * (seconds or 0.0) / 3600
    return hours, known, unknown


def gpu_lines(experiment: Experiment, jobs: Jobs) -> list[str]:
    """What is to be done, in GPU-hours."""
    hours, known, unknown = gpu_hours(experiment, jobs)
    if not known + unknown:
        return []
    lines = [f"This takes about {hours:,.0f} GPU-hours for {known} jobs, judged by recorded times."]
    if unknown:
        lines.append(f"Nobody recorded the times of {unknown} more jobs on GPUs: they come on top.")
    return lines


@dataclass(frozen=True)
class Cost:
    """Of a cell, by rule: how many jobs, and their GPU-hours, None where nobody knows them."""

    trained: bool
    jobs: Mapping[str, int]
    hours: Mapping[str, float | None]

    @property
    def unknown(self) -> int:
        """Jobs whose time nobody knows."""
        return sum(self.jobs[rule] for rule, hours in self.hours.items() if hours is None)


def cost_of_cell(experiment: Experiment, cell: str) -> Cost:
    """Training, pictures and scores of every run of it; what needs no GPU has 0 hours."""
    trained, runs = experiment.cells[cell].trained, len(experiment.cells[cell].seeds)
    jobs = {rule: runs for rule in OF_A_RUN if rule != "train" or trained}
    hours: dict[str, float | None] = {}
    for rule in jobs:
        wildcards = {"cell": cell}
        gpus = experiment.job(rule, wildcards).gpu
        seconds = known_seconds(experiment, rule, wildcards) if gpus else 0.0
        hours[rule] = None if seconds is None else runs * gpus * seconds / 3600
    return Cost(trained, jobs, hours)


def shown_cells(experiment: Experiment) -> dict[str, list[str]]:
    """The cells of each table, as tables.yaml has them, and those of all figures."""
    shown = {name: experiment.cells_of_table(name) for name in experiment.tables if name != SWEEP}
    figures = (cell for name in experiment.figures for cell in experiment.cells_of_figure(name))
    return shown | {FIGURES: list(dict.fromkeys(figures))}


def plan_costs(experiment: Experiment) -> str:
    """Everything that a whole run of the preset computes: a line for each cell, then one for each table and for all.

    What several tables show stands under the first of them, counts in each, and once in the sum.
    """
    shown = shown_cells(experiment)
    every = dict.fromkeys(cell for cells in shown.values() for cell in cells)
    costs = {cell: cost_of_cell(experiment, cell) for cell in every}
    return "\n".join(
        [
            f"GPU-hours of preset {experiment.preset}, from nothing, by recorded times:",
            *cell_lines(shown, costs),
            "",
            *table_lines(shown, costs),
            *beside_lines(experiment, every),
        ]
    )


def cell_lines(shown: Mapping[str, list[str]], costs: Mapping[str, Cost]) -> list[str]:
    """A line for each cell, under the first table that shows it."""
    tables: dict[str, list[str]] = {}
    for table, cells in shown.items():
        for cell in cells:
            tables.setdefault(cell, []).append(table)
    width = max([24, *(len(cell) + 2 for cell in costs)])
    lines = []
    for table, cells in shown.items():
        new = [cell for cell in cells if tables[cell][0] == table]
        if not new:
            continue
        titles = "".join(f"{rule:>10}" for rule in OF_A_RUN)
        lines.append(f"  {table:{width}} {'jobs':>5}{titles}")
        for cell in new:
            cost = costs[cell]
            hours = "".join(f"{_hours(cost, rule):>10}" for rule in OF_A_RUN)
            line = f"    {cell:{width - 2}} {sum(cost.jobs.values()):5,d}{hours}"
            lines.append(line + _also(tables[cell][1:]))
    return lines


def _hours(cost: Cost, rule: str) -> str:
    if rule not in cost.jobs:
        return "-"
    hours = cost.hours[rule]
    return "unknown" if hours is None else f"{hours:,.1f}"


def _also(tables: list[str]) -> str:
    """Where else the cell is shown.

    >>> _also(["table02", "table04", "table05", "table06"])
    '   also in table02, table04, table05 and 1 more'
    """
    more = f" and {len(tables) - SHOWN_TABLES} more" if len(tables) > SHOWN_TABLES else ""
    return f"   also in {', '.join(tables[:SHOWN_TABLES])}{more}" if tables else ""


def table_lines(shown: Mapping[str, list[str]], costs: Mapping[str, Cost]) -> list[str]:
    """A line for each table by itself, and one for all of them."""
    titles = "".join(f"{rule:>10}" for rule in OF_A_RUN)
    lines = [f"  {'':9} {'trained cells':>13} {'jobs':>7}{titles} {'GPU-hours':>12}"]
    for name, cells in [*shown.items(), ("together", list(costs))]:
        found = [costs[cell] for cell in cells]
        if not found:
            continue
        jobs = {rule: sum(cost.jobs.get(rule, 0) for cost in found) for rule in OF_A_RUN}
        of_rules = "".join(f"{number:10,d}" for number in jobs.values())
        hours = sum(hours or 0.0 for cost in found for hours in cost.hours.values())
        amount = _amount(hours, sum(cost.unknown for cost in found))
        trained = sum(cost.trained for cost in found)
        lines.append(f"  {name:9} {trained:13,d} {sum(jobs.values()):7,d}{of_rules} {amount}")
    return lines


def beside_lines(experiment: Experiment, cells: Iterable[str]) -> list[str]:
    """A line for each other rule that may need GPUs: what all cells share."""
    lines = []
    for rule, jobs in shared_jobs(experiment, cells).items():
        hours, known, unknown = gpu_hours(experiment, jobs)
        if known + unknown:
            lines.append(f"  {'and ' + rule:23} {len(jobs):7,d}{'':30} {_amount(hours, unknown)}")
    return lines


def _amount(hours: float, unknown: int) -> str:
    """
    >>> _amount(2500.8, 14).strip(), _amount(0.0, 14).strip()
    ('2,500.8, and 14 jobs of unknown time', 'unknown')
    """
    if unknown and not hours:
        return f"{'unknown':>12}"
    rest = f", and {unknown:,d} job{'s' * (unknown > 1)} of unknown time" if unknown else ""
    return f"{hours:12,.1f}{rest}"


def shared_jobs(experiment: Experiment, cells: Iterable[str]) -> dict[str, Jobs]:
    """By rule: embedded prompts, and what is measured for tables and figures."""
    files: dict[tuple[str, str, str], None] = {}
    for cell in cells:
        settings, model = experiment.cells[cell].settings, experiment.model(cell)
        if experiment.cells[cell].trained:
            files[model, settings.dataset, "train"] = None
        files |= {(model, name, split): None for name, split, _ in experiment.image_sets(cell)}
    figures = experiment.figures.values()
    measured: dict[str, list[Table | Figure]] = {
        rule: [figure for figure in figures if rule in figure.reads]
        for rule in ("overhead", "spread")
    }
    measured["overhead"] += [t for t in experiment.tables.values() if t.needs_overhead]
    embed = [
        ("embed", {"model": model, "dataset": dataset, "split": split})
        for model, dataset, split in files
    ]
    jobs: dict[str, Jobs] = {"embed": embed}
    for rule, sheets in measured.items():
        models = dict.fromkeys(experiment.model(sheet.rows[0].names[0]) for sheet in sheets)
        jobs[rule] = [(rule, {"model": model}) for model in models]
    return jobs
