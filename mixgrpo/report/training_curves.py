"""Each trained reward over the iterations, and beneath which denoising steps the window trained."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mixgrpo.errors import UserError
from mixgrpo.report.figure_spec import FigureSpec
from mixgrpo.report.style import (
    colours,
    footer,
    inches_axes,
    inches_text,
    new_figure,
    title,
)
from mixgrpo.report.training_metrics import REWARD, read_metrics, reward_names

RUNNING = 10
"""Iterations of the running mean: one iteration's prompts differ from the next's by more than training gains."""
WIDTH = 6.6
LEFT = 1.25
RIGHT = 0.2
HEAD = 1.35
PANEL = 1.35
PANEL_GAP = 0.34
LANE = 0.24
LANE_GAP = 0.07
FOOT = 0.62

Runs = dict[str, list[pd.DataFrame]]
"""cell -> metrics of its seeds."""


def draw(spec: FigureSpec) -> Figure:
    """A panel for each reward, a lane for each cell, on one axis of iterations."""
    runs = _read(spec)
    rewards = list(dict.fromkeys(n for seeds in runs.values() for n in reward_names(seeds[0])))
    iterations = max(len(metrics) for seeds in runs.values() for metrics in seeds)
    length = running_length(iterations)
    shades = colours(list(runs))
    labels = {cell.cell: cell.label for cell in spec.cells if cell.cell in runs}
    lanes_top = HEAD + len(rewards) * (PANEL + PANEL_GAP)
    figure = new_figure(WIDTH, lanes_top + len(runs) * (LANE + LANE_GAP) + FOOT)
    for i, reward in enumerate(rewards):
        top = HEAD + i * (PANEL + PANEL_GAP)
        axes = inches_axes(figure, LEFT, top, WIDTH - LEFT - RIGHT, PANEL)
        _panel(axes, reward, runs, shades, length)
        axes.set_title(_panel_title(spec, reward))
        axes.set_xlim(0, iterations)
        axes.tick_params(labelbottom=False)
    top_step = max(_last_step(metrics) for seeds in runs.values() for metrics in seeds)
    for i, (cell, seeds) in enumerate(runs.items()):
        top = lanes_top + i * (LANE + LANE_GAP)
        axes = inches_axes(figure, LEFT, top, WIDTH - LEFT - RIGHT, LANE)
        _lane(axes, seeds[0], shades[cell], top_step=top_step, last=i == len(runs) - 1)
        axes.set_xlim(0, iterations)
        axes.set_ylabel(labels[cell], rotation=0, ha="right", va="center", color=shades[cell])
    _words(figure, spec, labels, shades, length=length, lanes_top=lanes_top)
    return figure


def _last_step(metrics: pd.DataFrame) -> int:
    return int((metrics["window_start"] + metrics["window_size"]).max())


def _read(spec: FigureSpec) -> Runs:
    runs = {
        cell.cell: [read_metrics(Path(path)) for path in cell.metrics]
        for cell in spec.cells
        if cell.metrics
    }
    if not runs:
        raise UserError(
            f"figure {spec.name}: no cell has metrics. A figure of training reads metrics (config/figures.yaml) "
            "and shows cells that are trained."
        )
    return runs


def running_length(iterations: int) -> int:
    """`RUNNING`, or half of a run that is shorter than two of them.

    >>> running_length(60), running_length(4)
    (10, 2)
    """
    return min(RUNNING, max(1, iterations // 2))


def running_mean(values: pd.Series, length: int) -> pd.Series:
    """Mean of the last `length` iterations, where there are as many.

    >>> running_mean(pd.Series([1.0, 3.0, 5.0]), 2).to_list()
    [2.0, 4.0]
    """
    return values.rolling(length).mean().dropna()


def _panel(axes: Axes, reward: str, runs: Runs, shades: dict[str, str], length: int) -> None:
    """Running means; with several seeds, each of them pale behind their mean."""
    for cell, seeds in runs.items():
        columns = [metrics[REWARD + reward] for metrics in seeds if REWARD + reward in metrics]
        curves = [running_mean(column, length) for column in columns]
        if len(curves) > 1:
            for curve in curves:
                axes.plot(curve.index + 1, curve, color=shades[cell], alpha=0.25, linewidth=0.8)
        if curves:
            mean = pd.concat(curves, axis=1).mean(axis=1)
            marker = "o" if len(mean) == 1 else None
            axes.plot(mean.index + 1, mean, color=shades[cell], marker=marker, markersize=3)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(iteration_ticks())
    axes.yaxis.set_major_locator(MaxNLocator(4))


def iteration_ticks() -> MaxNLocator:
    """The same for every panel and lane."""
    return MaxNLocator(8, steps=[1, 2, 5, 10], integer=True)


def _panel_title(spec: FigureSpec, reward: str) -> str:
    header = spec.rewards.get(reward)
    return f"{reward}  (here for {header})" if header else reward


def _lane(axes: Axes, metrics: pd.DataFrame, shade: str, *, top_step: int, last: bool) -> None:
    """The steps sampled by SDE, early ones at the bottom."""
    starts, sizes = metrics["window_start"].to_numpy(), metrics["window_size"].to_numpy()
    edges = range(len(metrics) + 1)
    low = [*starts, starts[-1]]
    high = [*(starts + sizes), starts[-1] + sizes[-1]]
    axes.fill_between(edges, low, high, step="post", color=shade, alpha=0.35, linewidth=0)
    for edge in (low, high):
        axes.plot(edges, edge, drawstyle="steps-post", color=shade, linewidth=0.9, clip_on=False)
    axes.set_facecolor("#f5f5f5")
    axes.set_ylim(0, top_step)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(last)
    axes.tick_params(bottom=last, labelbottom=last)
    axes.xaxis.set_major_locator(iteration_ticks())
    if last:
        axes.set_xlabel("iteration")


def _words(
    figure: Figure,
    spec: FigureSpec,
    labels: dict[str, str],
    shades: dict[str, str],
    *,
    length: int,
    lanes_top: float,
) -> None:
    """Title, legend, the lanes' heading, and where it comes from."""
    height = figure.get_size_inches()[1]
    title(figure, spec.title, spec.caption)
    handles = [Line2D([], [], color=shades[cell], label=label) for cell, label in labels.items()]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=((LEFT - 0.05) / WIDTH, 1 - 0.7 / height),
        ncols=3,
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        handlelength=1.4,
    )
    lanes = "Steps sampled by SDE  (bottom: the first, noisiest)"
    inches_text(figure, LEFT, lanes_top - 0.08, lanes, size=9, weight="bold", va="bottom")
    footer(figure, f"{spec.origin(spec.seeds)}; running mean over {length} iterations")
