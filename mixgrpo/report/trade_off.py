"""Figure 1 of the paper: what training gained, against what an iteration costs."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixgrpo.errors import UserError
from mixgrpo.report.figure_spec import FigureCell, FigureSpec
from mixgrpo.report.gains import TRAINED, view_gains
from mixgrpo.report.labels import Labelled, place_labels
from mixgrpo.report.overhead import read_overhead
from mixgrpo.report.statistics import Summary
from mixgrpo.report.style import colours, footer, inches_axes, new_figure, title
from mixgrpo.report.table_spec import ColumnSpec, EntrySpec, RowSpec, TableSpec, ViewSpec
from mixgrpo.report.training_metrics import mean_of_runs
from mixgrpo.report.views import read_view

WIDTH = 7.2
HEIGHT = 4.3
LEFT = 0.62
RIGHT = 0.2
HEAD = 0.98
FOOT = 0.68
GAP = 0.3
LINE = "dancegrpo"
"""The method whose step counts are joined by a line: dancegrpo, dancegrpo_4, dancegrpo_8."""


@dataclass(frozen=True)
class Point:
    """One cell."""

    cell: FigureCell
    gain: Summary
    iteration_seconds: float
    update_nfe: float


def draw(spec: FigureSpec) -> Figure:
    """Two panels with one axis of gains: seconds of an iteration, denoising steps trained."""
    spec.needed("dataset", "split", "p_mix", "scores", "overhead")
    points = _points(spec)
    shades = colours([point.cell.cell for point in points])
    figure = new_figure(WIDTH, HEIGHT)
    width = (WIDTH - LEFT - RIGHT - GAP) / 2
    for i, (name, label) in enumerate(
        (
            ("iteration_seconds", "seconds of an iteration"),
            ("update_nfe", "denoising steps optimised per image"),
        )
    ):
        left = LEFT + i * (width + GAP)
        axes = inches_axes(figure, left, HEAD, width, HEIGHT - HEAD - FOOT)
        _panel(axes, points, name, shades)
        axes.set_xlabel(label)
        axes.tick_params(labelleft=i == 0)
    figure.axes[0].set_ylabel("gain in the trained rewards, in sd")
    title(figure, spec.title, spec.caption)
    where = f"{spec.dataset} {spec.split}, p_mix = {spec.p_mix:g}; bars: standard error over "
    footer(figure, f"{spec.origin()}; {where}{'seeds' if len(spec.seeds) > 1 else 'prompts'}")
    return figure


def _points(spec: FigureSpec) -> list[Point]:
    assert spec.overhead is not None
    costs = read_overhead(Path(spec.overhead)).rows
    gains = trained_gains_of(spec)
    points = []
    for cell in [cell for cell in spec.cells if cell.trained]:
        absent = [
            what
            for what, there in (
                (f"time in {spec.overhead}", cell.cell in costs),
                ("metrics", bool(cell.metrics)),
                (f"score in {spec.scores}", cell.cell in gains),
            )
            if not there
        ]
        if absent:
            raise UserError(
                f"figure {spec.name}: {cell.cell} has no {' and no '.join(absent)}. Have the figure read "
                "metrics, scores and overhead (config/figures.yaml), and rerun snakemake."
            )
        seconds = costs[cell.cell].sharing_on.iteration_seconds
        steps = mean_of_runs([Path(path) for path in cell.metrics], "update_nfe")
        points.append(Point(cell, gains[cell.cell], seconds, steps))
    return points


def trained_gains_of(spec: FigureSpec) -> dict[str, Summary]:
    """cell -> paired gain in what it trained on, as in the tables."""
    cells = [cell for cell in spec.cells if cell.trained]
    names = dict.fromkeys(name for cell in cells for name in cell.trained)
    table = TableSpec(
        table=spec.name,
        kind="gains",
        title=spec.title,
        caption=spec.caption,
        preset=spec.preset,
        scale=spec.scale,
        seeds=spec.seeds,
        columns=tuple(ColumnSpec(role=name, name=name, header=name) for name in names),
        views=(
            ViewSpec(
                dataset=str(spec.dataset),
                split=str(spec.split),
                p_mix=float(spec.p_mix or 0),
                gains_p_mix=float(spec.p_mix or 0),
            ),
        ),
        rows=tuple(
            RowSpec(
                label=cell.label,
                entries=(EntrySpec(cell=cell.cell, base=spec.base, trained=cell.trained),),
            )
            for cell in cells
        ),
    )
    rows = view_gains(read_view(table, 0, Path(str(spec.scores)))).rows
    return {row.entry.cell: row.gains[TRAINED] for row in rows if TRAINED in row.gains}


def _panel(axes: Axes, points: list[Point], name: str, shades: dict[str, str]) -> None:
    line = sorted((p for p in points if _on_line(p.cell.cell)), key=lambda p: getattr(p, name))
    xs, ys = [getattr(p, name) for p in line], [p.gain.mean for p in line]
    axes.plot(xs, ys, color=shades.get(LINE, "#0072b2"), linewidth=1.0, alpha=0.5, zorder=1)
    for point in points:
        axes.errorbar(
            getattr(point, name),
            point.gain.mean,
            yerr=point.gain.error or 0,
            fmt="o",
            color=shades[point.cell.cell],
            markersize=5,
            elinewidth=1.0,
            capsize=2,
            zorder=2,
        )
    low = min(point.gain.mean - (point.gain.error or 0) for point in points)
    high = max(point.gain.mean + (point.gain.error or 0) for point in points)
    room = 0.18 * (high - low or 1.0)
    axes.set_ylim(low - room, high + room)
    axes.set_xlim(0, 1.12 * max(getattr(p, name) for p in points))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    named = [
        Labelled(
            p.cell.label, getattr(p, name), p.gain.mean, p.gain.error or 0, shades[p.cell.cell]
        )
        for p in points
    ]
    place_labels(axes, named, line=list(zip(xs, ys, strict=True)))


def _on_line(cell: str) -> bool:
    """Whether a cell is a step count of the method on the line.

    >>> [_on_line(cell) for cell in ("dancegrpo", "dancegrpo_8", "dancegrpo_4_first", "mixgrpo")]
    [True, True, False, False]
    """
    return cell == LINE or cell.removeprefix(f"{LINE}_").isdigit()
