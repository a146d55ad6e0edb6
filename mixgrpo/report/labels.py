"""Names beside points: each in its point's colour, none over another or over a point."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

GAP = 6.0
"""Between a point and its name, in points."""
RINGS = (1.0, 2.0, 3.4, 5.0)
"""Distances tried, in units of GAP; a name as far as the third is joined to its point by a line."""
LINE_FROM = 2.0
PLACES = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
"""Where a name may stand, seen from its point; the first that is free."""
HORIZONTAL = {1: "left", 0: "center", -1: "right"}
VERTICAL = {1: "bottom", 0: "center", -1: "top"}
MARK = 3.5
"""Half the side of what a point covers, in points."""


@dataclass(frozen=True)
class Labelled:
    """One point and its name; `error` is half the length of its bar."""

    text: str
    x: float
    y: float
    error: float
    colour: str


def place_labels(
    axes: Axes, points: Sequence[Labelled], *, line: Sequence[tuple[float, float]] = ()
) -> None:
    """Greedy, in order: a name takes the place that covers least of points, bars, names before it.

    Nor does it cover the `line` through some of them. The limits of `axes` must be set: names are
    placed in pixels.
    """
    pixels = axes.transData.transform(list(line)) if line else np.empty((0, 2))
    taken = [_covered(axes, point) for point in points]
    for start, end in itertools.pairwise(pixels):
        taken += _along(start, end)
    inside = axes.get_window_extent()
    names: list[Bbox] = []
    for point in points:
        at = axes.transData.transform((point.x, point.y))
        costs = []
        for ring in RINGS:
            for place in PLACES:
                name = _write(axes, point, ring, place)
                box = name.get_window_extent()
                name.remove()
                joined = _along(at, (box.p0 + box.p1) / 2) if ring >= LINE_FROM else []
                cost = _area(box) - _shared(box, [inside]) + _shared(box, [*taken, *names])
                cost += sum(_shared(part, names) for part in joined)
                costs.append((cost, ring, place, box, joined))
        _, ring, place, box, joined = min(costs, key=lambda found: found[0])
        names.append(box)
        taken += joined
        _write(axes, point, ring, place, line=ring >= LINE_FROM)


def _along(start: np.ndarray, end: np.ndarray) -> list[Bbox]:
    """Small boxes along a line, in pixels."""
    middles = [start + share * (end - start) for share in np.linspace(0, 1, 40)]
    return [Bbox.from_extents(x - 2, y - 2, x + 2, y + 2) for x, y in middles]


def _write(
    axes: Axes, point: Labelled, ring: float, place: tuple[int, int], *, line: bool = False
) -> Annotation:
    right, up = place
    arrow: dict[str, Any] = {"arrowstyle": "-", "color": point.colour, "linewidth": 0.6}
    return axes.annotate(
        point.text,
        (point.x, point.y + (0 if right else up * point.error)),
        xytext=(right * ring * GAP, up * ring * GAP),
        textcoords="offset points",
        ha=HORIZONTAL[right],
        va=VERTICAL[up],
        size=7,
        color=point.colour,
        weight="bold",
        arrowprops=arrow | {"shrinkA": 0, "shrinkB": MARK} if line else None,
    )


def _covered(axes: Axes, point: Labelled) -> Bbox:
    """Pixels of a point and its error bar."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    side = MARK * figure.dpi / 72
    ends = [(point.x, point.y - point.error), (point.x, point.y + point.error)]
    (x, bottom), (_, top) = axes.transData.transform(ends)
    middle, half = (bottom + top) / 2, max((top - bottom) / 2, side)
    return Bbox.from_extents(x - side, middle - half, x + side, middle + half)


def _shared(box: Bbox, others: Sequence[Bbox]) -> float:
    """Area that `box` has in common with the others."""
    common = (Bbox.intersection(box, other) for other in others)
    return sum(_area(part) for part in common if part is not None)


def _area(box: Bbox) -> float:
    return float(box.width * box.height)
