"""Figure 2 of the paper: which steps are SDE, ODE and tail as the window moves; what an SDE step spreads."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from mixgrpo.algorithm.schedule import num_tail_steps
from mixgrpo.algorithm.window import windows_of_run
from mixgrpo.config import Settings, read_settings
from mixgrpo.errors import UserError
from mixgrpo.report.figure_spec import FigureSpec
from mixgrpo.report.inputs import LENIENT, read_json
from mixgrpo.report.style import INK, footer, inches_axes, new_figure, title

SDE, ODE, TAIL = "#d55e00", "#bdd7ea", "#f0b429"
NAMES = {
    SDE: "SDE, optimised",
    ODE: "ODE",
    TAIL: "DPM-Solver++ tail",
}
WIDTH = 7.6
LEFT = 0.62
MAP = 3.4
MIDDLE = 0.85
RIGHT = 0.2
HEAD = 1.18
LANE = 1.02
LANE_GAP = 0.34
FOOT = 0.66


@dataclass(frozen=True, kw_only=True)
class Position:
    """The only SDE step of a rollout, and how far it moved the images of a group from their mean."""

    step: int
    spread: float
    standard_error: float | None = None

    __pydantic_config__ = LENIENT


@dataclass(frozen=True, kw_only=True)
class Spread:
    """spread/{model}.json."""

    num_prompts: int
    group_size: int
    num_steps: int
    positions: tuple[Position, ...]

    __pydantic_config__ = LENIENT


def draw(spec: FigureSpec) -> Figure:
    """A map for each cell at the left, the measured spread at the right."""
    spec.needed("spread")
    spread = read_json(Path(str(spec.spread)), Spread, remedy=f"`snakemake {spec.spread}` makes it")
    runs = [(cell.label, _settings(spec, cell.settings, cell.cell)) for cell in spec.cells]
    height = HEAD + len(runs) * LANE + (len(runs) - 1) * LANE_GAP + FOOT
    figure = new_figure(WIDTH, height)
    for i, (label, settings) in enumerate(runs):
        axes = inches_axes(figure, LEFT, HEAD + i * (LANE + LANE_GAP), MAP, LANE)
        _map(axes, settings)
        axes.set_title(label, size=8.5)
        axes.tick_params(labelbottom=i == len(runs) - 1)
        axes.set_ylabel("iteration")
    figure.axes[len(runs) - 1].set_xlabel("denoising step  (0: the first, noisiest)")
    left = LEFT + MAP + MIDDLE
    axes = inches_axes(figure, left, HEAD, WIDTH - left - RIGHT, height - HEAD - FOOT)
    _spread(axes, spread)
    title(figure, spec.title, spec.caption)
    _legend(figure, height, {colour for _, s in runs for *_, colour in blocks(s)})
    clocks = {settings.training.window_clock for _, settings in runs} - {1}
    clock = "; ".join(f"an iteration stands for {c} of the paper's" for c in sorted(clocks))
    measured = f"spread: untrained model, {spread.num_prompts} groups of {spread.group_size} images"
    footer(figure, "; ".join(filter(None, [spec.origin(spec.seeds[:1]), clock, measured])))
    return figure


def _settings(spec: FigureSpec, path: str | None, cell: str) -> Settings:
    if path is None:
        raise UserError(
            f"figure {spec.name}: cell {cell} has no settings in its spec. A figure of the window reads "
            "settings (config/figures.yaml) and shows cells that are trained."
        )
    return read_settings(Path(path))


Block = tuple[float, float, int, int, str]
"""Left and width in denoising steps, first iteration and number of iterations, colour."""


def blocks(settings: Settings) -> list[Block]:
    """A rectangle for each network evaluation of each window.

    An evaluation of the tail is as wide as the steps that it stands for.
    """
    sampling, training = settings.sampling, settings.training
    windows = windows_of_run(
        settings.window,
        sampling.num_steps,
        training.num_iterations,
        clock=training.window_clock,
        seed=settings.seed,
    )
    found: list[Block] = []
    first = 0
    for window, same in itertools.groupby(windows):
        length = len(list(same))
        for step, width, colour in _evaluations(settings, window):
            found.append((step, width, first, length, colour))
        first += length
    return found


def _evaluations(settings: Settings, window: range) -> list[tuple[float, float, str]]:
    sampling = settings.sampling
    num_steps = sampling.num_steps
    stochastic = {
        "window": window,
        "all_but_last": range(num_steps - 1),
        "all": range(num_steps),
    }[sampling.sde_steps]
    last = num_steps if sampling.tail_ratio is None else window.stop
    steps = [(float(i), 1.0, SDE if i in stochastic else ODE) for i in range(last)]
    if sampling.tail_ratio is not None:
        count = num_tail_steps(num_steps, window, sampling.tail_ratio)
        width = (num_steps - last) / count
        steps += [(last + k * width, width, TAIL) for k in range(count)]
    return steps


def _map(axes: Axes, settings: Settings) -> None:
    for colour in NAMES:
        patches = [
            Rectangle((step, first), width, length)
            for step, width, first, length, other in blocks(settings)
            if other == colour
        ]
        collection = PatchCollection(patches, facecolor=colour, edgecolor="white", linewidth=0.35)
        axes.add_collection(collection)
    axes.set_xlim(0, settings.sampling.num_steps)
    axes.set_ylim(settings.training.num_iterations, 0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def _spread(axes: Axes, spread: Spread) -> None:
    axes.errorbar(
        [position.step for position in spread.positions],
        [position.spread for position in spread.positions],
        yerr=[position.standard_error or 0 for position in spread.positions],
        color=SDE,
        marker="o",
        markersize=3,
        elinewidth=0.9,
        linewidth=1.0,
    )
    axes.set_title("Spread by one SDE step", size=8.5)
    axes.set_xlabel("the only SDE step")
    axes.set_ylabel("RMS distance from the group's mean image", color=INK)
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.8, spread.num_steps - 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _legend(figure: Figure, height: float, shown: set[str]) -> None:
    handles = [Patch(color=colour, label=name) for colour, name in NAMES.items() if colour in shown]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=((LEFT - 0.03) / WIDTH, 1 - 0.74 / height),
        ncols=3,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.0,
        handleheight=0.9,
        columnspacing=1.4,
    )
