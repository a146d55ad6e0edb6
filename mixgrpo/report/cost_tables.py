"""All that `overhead` measured, of every table whose cells are timed, beside the paper's times and ratios."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from mixgrpo.errors import UserError
from mixgrpo.report.document import Document, Entry, Grid, Heading, number
from mixgrpo.report.overhead import Measurement, Overhead
from mixgrpo.report.published import Published, as_number
from mixgrpo.report.table_spec import TIMED_ROLES, TableSpec

PATHS = {"sharing_on": "shared", "sharing_off": "unshared", "one_by_one": "one by one"}
"""What the file calls a path, and what a person does."""
UNITS = {"iteration_seconds": "iteration", "image_seconds": "sampled image"}
PHASES = ("rollout", "reward", "update")
GIGA, TERA = 1e9, 1e12
CLOCKS = {"cpu": "CPU", "wall": "wall"}
LEGEND = (
    "Shared: what all images of a group have in common (the steps before the window, and its first step) is "
    "evaluated once; unshared: once for every image; one by one: and every image alone, in sampling and in the "
    "update, as the authors' released code does it.",
    "NFE: network evaluations per image as the paper counts them; made: those that sharing leaves.",
    "Ratios are to the first row, of one path to the same path. Counted ratios are what the evaluations made "
    "predict, if nothing else costs anything and a trained evaluation costs as many forward passes as `passes` "
    "says: its own, one for the gradient of the activations, one for that of the weights (not with LoRA), one "
    "more with gradient checkpointing, one where the loss has a frozen network beside it; half of it in Flow-DPO "
    "where sampling is guided, because it trains one branch of two.",
    "Utilisation: operations of the network, counted from its config, over the seconds of the phase, over the peak "
    "of a large matrix product in the same run. The seconds hold more than the network: decoding in the "
    "rollout, the optimizer in the update. Only ratios carry over to another machine.",
)


@dataclass(frozen=True)
class Timed:
    """One table, and the file that its cells were measured into."""

    spec: TableSpec
    overhead: Overhead
    published: Published

    @property
    def role(self) -> str:
        """The time that the table shows; of an iteration, where it shows none."""
        roles = self.spec.roles(TIMED_ROLES)
        return roles[0] if roles else TIMED_ROLES[0]

    @property
    def paths(self) -> list[str]:
        """Those on which every row was measured."""
        rows = [self.overhead.rows[cell] for _, cell in self.rows]
        return [path for path in PATHS if all(getattr(row, path) is not None for row in rows)]

    @property
    def rows(self) -> list[tuple[int, str]]:
        """Row of the table and cell, of the rows that were measured."""
        cells = enumerate(row.entries[0].cell for row in self.spec.rows)
        trained = [row.entries[0].trained for row in self.spec.rows]
        return [(r, cell) for r, cell in cells if trained[r] and cell in self.overhead.rows]

    def measured(self, path: str) -> list[Measurement]:
        """Of every row."""
        return [getattr(self.overhead.rows[cell], path) for _, cell in self.rows]

    def printed(self, role: str) -> list[str]:
        """What the paper prints in every row."""
        return [self.published.get((0, r, role), "") for r, _ in self.rows]


def match(
    specs: Sequence[TableSpec],
    overheads: Sequence[Overhead],
    published: Mapping[str, Published],
) -> list[Timed]:
    """Each table with the file that holds its cells. UserError when none does."""
    found = []
    for spec in specs:
        timed = [Timed(spec, overhead, published.get(spec.table, {})) for overhead in overheads]
        best = max(timed, key=lambda one: len(one.rows), default=None)
        if best is None or not best.rows:
            raise UserError(
                f"{spec.table}: none of its cells was measured. Give the overhead file of its model with --overheads."
            )
        found.append(best)
    return found


def build(tables: Sequence[Timed]) -> Document:
    """Everything on one page."""
    first = tables[0].spec
    return Document(
        name="costs",
        title="What an iteration costs",
        caption=f"Preset {first.preset}: {first.scale}.",
        facts=tuple(fact(one) for one in first_of_each(tables)),
        grids=tuple(grid for timed in tables for grid in grids(timed)),
        legend=LEGEND,
        footnotes=(),
        data=pd.DataFrame([row for timed in tables for row in tidy(timed)]),
    )


def first_of_each(tables: Sequence[Timed]) -> list[Timed]:
    """A table for each file of measurements."""
    return list({id(timed.overhead): timed for timed in reversed(tables)}.values())[::-1]


def fact(timed: Timed) -> tuple[str, str]:
    """On what it was measured, and how."""
    found, some = timed.overhead, timed.measured("sharing_on")[0]
    peak = "" if found.peak_flops is None else f", peak {found.peak_flops / TERA:.3g} TFLOP/s"
    checkpointing = " with gradient checkpointing" if some.gradient_checkpointing else ""
    sentence = (
        f"{CLOCKS.get(found.clock, found.clock)} seconds on {found.device}{peak}; precision {found.precision}, updates "
        f"train {found.trained}, {some.micro_batch} images at a time{checkpointing}, compiled: "
        f"{'yes' if found.compile else 'no'}; median of {found.repetitions} repetition(s) at each of "
        f"{found.num_positions} positions of the schedule; "
        f"{', '.join(f'{name} {version}' for name, version in found.versions.items())}"
    )
    return timed.spec.title.split(":")[0], sentence


def grids(timed: Timed) -> Iterator[Grid]:
    """What one table has to show."""
    name, unit = timed.spec.title.split(":")[0], UNITS[timed.role]
    yield _grid(timed, f"{name}: network evaluations per image", _evaluations(timed))
    yield _grid(timed, f"{name}: seconds per {unit}", _seconds(timed))
    yield _grid(timed, f"{name}: ratios to the first row", _ratios(timed))
    yield _grid(timed, f"{name}: seconds of each phase of an iteration", _phases(timed))
    if timed.overhead.peak_flops is not None:
        yield _grid(timed, f"{name}: utilisation of the peak, memory", _utilisation(timed))


Column = tuple[Heading, list[str]]


def _evaluations(timed: Timed) -> Iterator[Column]:
    shared = timed.measured("sharing_on")
    for phase in ("rollout", "update"):
        ours = [number(getattr(one, f"{phase}_nfe"), 1) for one in shared]
        yield Heading("NFE", "ours", phase), ours
        if any(printed := timed.printed(f"{phase}_nfe")):
            yield Heading("NFE", "paper", phase), printed
        made = [number(getattr(one, f"counted_{phase}_evaluations"), 2) for one in shared]
        yield Heading("made", "ours", phase), made
    yield Heading("passes", "ours", "update"), [number(one.update_passes, 1) for one in shared]


def _seconds(timed: Timed) -> Iterator[Column]:
    found = {
        path: [getattr(one, timed.role) for one in timed.measured(path)] for path in timed.paths
    }
    for path, values in found.items():
        yield Heading(PATHS[path], "ours", "seconds"), _texts(values)
    if any(printed := timed.printed(timed.role)):
        yield Heading("seconds", "paper", "seconds"), printed
    slowest = timed.paths[-1]
    shares = [a / b for a, b in zip(found["sharing_on"], found[slowest], strict=True)]
    yield Heading(f"shared / {PATHS[slowest]}", "ours"), [number(share, 3) for share in shares]


def _ratios(timed: Timed) -> Iterator[Column]:
    for path in timed.paths:
        rows = timed.measured(path)
        seconds = [getattr(one, timed.role) for one in rows]
        counted = [one.predicted_cost(timed.role) for one in rows]
        yield Heading("ours", "measured", PATHS[path]), _relative(seconds)
        yield Heading("ours", "counted", PATHS[path]), _relative(counted)
    if any(printed := timed.printed(timed.role)):
        yield Heading("ratio", "paper", "paper"), _relative([as_number(text) for text in printed])


def _phases(timed: Timed) -> Iterator[Column]:
    for path in timed.paths:
        for phase in PHASES:
            seconds = [getattr(one, f"{phase}_seconds") for one in timed.measured(path)]
            yield Heading(phase, "", PATHS[path]), _texts(seconds)


def _utilisation(timed: Timed) -> Iterator[Column]:
    peak = timed.overhead.peak_flops
    assert peak is not None
    for path in timed.paths:
        rows = timed.measured(path)
        for phase in ("rollout", "update"):
            shares = [one.utilisation(phase, peak) for one in rows]
            yield Heading(phase, "", PATHS[path]), [_percent(share) for share in shares]
        if any(one.memory_bytes is not None for one in rows):
            memory = [one.memory_bytes and one.memory_bytes / GIGA for one in rows]
            yield Heading("GB", "", PATHS[path]), [number(value, 1) for value in memory]


def _grid(timed: Timed, title: str, columns: Iterator[Column]) -> Grid:
    listed = list(columns)
    labels = [timed.spec.rows[r].label for r, _ in timed.rows]
    return Grid(
        title=title,
        headings=(Heading("method"), *(heading for heading, _ in listed)),
        rows=tuple(
            (Entry(label), *(Entry(texts[k]) for _, texts in listed))
            for k, label in enumerate(labels)
        ),
    )


def _texts(values: Sequence[float | None]) -> list[str]:
    """To four significant digits, so that small models show something too."""
    return ["" if value is None else f"{value:.4g}" for value in values]


def _relative(values: Sequence[float | None]) -> list[str]:
    first = next((value for value in values if value), None)
    return [number(value and first and value / first, 3) for value in values]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def tidy(timed: Timed) -> Iterator[dict[str, object]]:
    """One record for each row and path, for the csv."""
    peak = timed.overhead.peak_flops
    for path in timed.paths:
        printed = timed.printed(timed.role)
        for (r, cell), one, paper in zip(timed.rows, timed.measured(path), printed, strict=True):
            names = [name for name in one.__dataclass_fields__ if not name.startswith("_")]
            yield {
                "table": timed.spec.table,
                "row": r,
                "label": timed.spec.rows[r].label,
                "cell": cell,
                "path": PATHS[path].replace(" ", "_"),
                **{name: getattr(one, name) for name in names},
                "rollout_utilisation": peak and one.utilisation("rollout", peak),
                "update_utilisation": peak and one.utilisation("update", peak),
                f"paper_{timed.role}": paper,
                "device": timed.overhead.device,
                "peak_flops": peak,
            }
