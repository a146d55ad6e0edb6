"""How every figure looks: one font, one colour a method, nothing that is not data."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixgrpo.files import write_with

INK = "#222222"
PALE = "#8a8a8a"
RULE = "#d9d9d9"
DPI = 200

COLOURS = {
    "base": "#7f7f7f",
    "mixgrpo": "#d55e00",
    "flash": "#e69f00",
    "flash_star": "#cc79a7",
    "dancegrpo": "#0072b2",
    "dancegrpo_4": "#56b4e9",
    "dancegrpo_4_first": "#009e73",
}
"""Okabe and Ito's colours, told apart by the colour-blind: warm for MixGRPO's family, cool for DanceGRPO's."""
OTHER_COLOURS = ("#332288", "#882255", "#44aa99", "#999933", "#aa4499", "#117733", "#661100")
"""For further cells, in order of appearance (Tol's muted colours)."""

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": INK,
    "axes.edgecolor": PALE,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "pdf.fonttype": 42,
}
WITHOUT_DATES = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""Equal figures are equal files."""


def colours(cells: Sequence[str]) -> dict[str, str]:
    """A colour for each cell: its method's own, else the next that is free.

    >>> colours(["mixgrpo", "window_2", "window_6"])
    {'mixgrpo': '#d55e00', 'window_2': '#332288', 'window_6': '#882255'}
    """
    others = [cell for cell in cells if cell not in COLOURS]
    further = {cell: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, cell in enumerate(others)}
    return {cell: COLOURS.get(cell) or further[cell] for cell in cells}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that no global state knows. Draw on it inside `rc()`."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def rc() -> mpl.RcParams:
    """The house style over matplotlib's own defaults, whatever the user's matplotlibrc says."""
    return mpl.RcParams({**mpl.rcParamsDefault, **RC})


def inches_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the figure's upper left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))


def inches_text(figure: Figure, left: float, top: float, text: str, **style: object) -> None:
    """Text placed in inches from the figure's upper left corner."""
    w, h = figure.get_size_inches()
    figure.text(left / w, 1 - top / h, text, **style)


def save(figure: Figure, path: Path) -> None:
    """As png or pdf, by the suffix; the same figure gives the same bytes."""
    kind = path.suffix.removeprefix(".")
    write_with(
        path,
        lambda temporary: figure.savefig(
            temporary, format=kind, dpi=DPI, metadata=WITHOUT_DATES[kind]
        ),
    )
