"""How every figure looks: one font, one colour a method, nothing that is not data."""

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mixgrpo.files import write_with

INK = "#222222"
MUTED = "#555555"
PALE = "#8a8a8a"
RULE = "#d9d9d9"
DPI = 200
MARGIN = 0.18
"""Inches left and right of everything."""
CAPTION_CHARACTER = 0.053
"""Width of an average character of a caption, inches."""

COLOURS = {
    "base": "#7f7f7f",
    "mixgrpo": "#d55e00",
    "flash": "#e69f00",
    "flash_star": "#cc79a7",
    "dancegrpo": "#0072b2",
    "dancegrpo_8": "#2b93cd",
    "dancegrpo_4": "#56b4e9",
    "dancegrpo_4_first": "#009e73",
}
"""Okabe and Ito's colours, told apart by the colour-blind: warm for MixGRPO's family, cool for DanceGRPO's."""
OTHER_COLOURS = ("#332288", "#882255", "#44aa99", "#999933", "#aa4499", "#117733", "#661100")
"""For further cells, in order of appearance (Tol's muted colours)."""

RC: Any = {
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
    "text.parse_math": False,  # a dollar in a prompt is a dollar
    "pdf.fonttype": 42,
}
WITHOUT_DATES: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}
"""Equal figures are equal files."""


def colours(cells: Sequence[str]) -> dict[str, str]:
    """A colour for each cell: its method's, unless another cell has it; else the next that is free.

    >>> colours(["mixgrpo", "mixgrpo_window2", "sd3_dpo_online", "pick_flash"])
    {'mixgrpo': '#d55e00', 'mixgrpo_window2': '#332288', 'sd3_dpo_online': '#882255', 'pick_flash': '#e69f00'}
    """
    found = {cell: COLOURS[cell] for cell in cells if cell in COLOURS}
    others = iter(OTHER_COLOURS * (1 + len(cells) // len(OTHER_COLOURS)))
    for cell in cells:
        if cell not in found:
            own = _colour_of_method(cell)
            found[cell] = own if own and own not in found.values() else next(others)
    return {cell: found[cell] for cell in cells}


def _colour_of_method(cell: str) -> str | None:
    """Of the method that the cell's name begins or ends with; the longest such name."""
    names = [m for m in COLOURS if cell.startswith(f"{m}_") or cell.endswith(f"_{m}")]
    return COLOURS[max(names, key=len)] if names else None


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """The style over matplotlib's own defaults, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, that no global state knows."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def inches_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes placed in inches from the figure's upper left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, 1 - (top + height) / h, width / w, height / h))


def inches_text(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Text placed in inches from the figure's upper left corner."""
    w, h = figure.get_size_inches()
    figure.text(left / w, 1 - top / h, text, **style)


def title(figure: Figure, text: str, caption: str) -> None:
    """At the top, the caption beneath in at most two lines."""
    inches_text(figure, MARGIN, 0.2, text, size=10, weight="bold", va="center")
    characters = int((figure.get_size_inches()[0] - 2 * MARGIN) / CAPTION_CHARACTER)
    lines = textwrap.wrap(caption, characters, max_lines=2, placeholder=" ...")
    for i, line in enumerate(lines):
        inches_text(figure, MARGIN, 0.42 + 0.14 * i, line, size=7, color=MUTED)


def footer(figure: Figure, text: str) -> None:
    """At the bottom: where the figure comes from."""
    height = figure.get_size_inches()[1]
    inches_text(figure, MARGIN, height - 0.1, text, size=5.5, color=PALE)


def save(figure: Figure, path: Path, *, name: str, caption: str, origin: str) -> None:
    """As png or pdf, by the suffix; the same figure gives the same bytes.

    A png says in its text chunks Title, Description and Source what it shows and where it comes from.
    """
    kind = path.suffix.removeprefix(".")
    said = {
        "png": {"Title": name, "Description": caption, "Source": origin},
        "pdf": {"Title": name, "Subject": caption},
    }
    write_with(
        path,
        lambda temporary: figure.savefig(
            temporary, format=kind, dpi=DPI, metadata=WITHOUT_DATES[kind] | said[kind]
        ),
    )
