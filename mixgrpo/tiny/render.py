"""Pictures of captions: signed distances, painted with a jitter of place, size and hue."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mixgrpo.tiny.grammar import COLORS, COUNTS, GROUNDS, SHAPES, SIZES, SLOTS, STYLES, Attributes

SIZE = 32
"""Height and width of a picture, pixels."""
OFFSET = 8.0
"""How far right or left of the centre each of two objects stands, pixels."""

COLOR_RGB = {
    "red": (0.85, 0.15, 0.15),
    "green": (0.15, 0.65, 0.20),
    "blue": (0.15, 0.25, 0.85),
    "yellow": (0.90, 0.82, 0.15),
    "purple": (0.55, 0.20, 0.70),
    "orange": (0.95, 0.50, 0.10),
    "cyan": (0.20, 0.75, 0.80),
}
GROUND_RGB = {
    "white": (0.92, 0.92, 0.92),
    "gray": (0.55, 0.55, 0.55),
    "black": (0.10, 0.10, 0.10),
    "pink": (0.90, 0.70, 0.75),
    "navy": (0.15, 0.18, 0.35),
}


def _circle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return (x**2 + y**2).sqrt() - r


def _square(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.85 * r


def _triangle(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return torch.maximum(0.866 * x.abs() - 0.5 * y, y) - 0.55 * r


def _diamond(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return (x.abs() + y.abs()) * 0.7071 - 0.75 * r


def _cross(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    horizontal = torch.maximum(x.abs() - r, y.abs() - 0.33 * r)
    vertical = torch.maximum(y.abs() - r, x.abs() - 0.33 * r)
    return torch.minimum(horizontal, vertical)


def _ring(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    return ((x**2 + y**2).sqrt() - 0.75 * r).abs() - 0.25 * r


DISTANCES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "cross": _cross,
    "ring": _ring,
}
"""Signed distance in pixels (negative inside) of a point (x, y) to each shape of half-size r."""


def labels(attributes: Sequence[Attributes]) -> Tensor:
    """(N, slots) indices of the answers, -1 where a caption does not say."""
    return torch.tensor([a.labels() for a in attributes], dtype=torch.long).view(-1, len(SLOTS))


def render(attributes: Sequence[Attributes], generator: torch.Generator) -> Tensor:
    """One picture per caption, (N, 3, SIZE, SIZE) in [0, 1].

    An unmentioned style is flat, an unmentioned size is drawn at random.
    """
    answers = dict(zip(SLOTS, labels(attributes).unbind(1), strict=True))
    n = len(attributes)
    ground = _pick(GROUND_RGB, GROUNDS, answers["ground"]) + _jitter(generator, n, 3) * 0.06
    images = ground[:, :, None, None].repeat(1, 1, SIZE, SIZE)
    two = answers["count"] == COUNTS.index("two")
    objects = ((-OFFSET, "", torch.arange(n)), (OFFSET, "second_", torch.nonzero(two)[:, 0]))
    for offset, prefix, rows in objects:
        shift = torch.where(two[rows], offset, 0.0)
        painted, mask = _paint(
            _pick(COLOR_RGB, COLORS, answers[f"{prefix}color"][rows]),
            answers[f"{prefix}shape"][rows],
            style=answers["style"][rows],
            size=answers["size"][rows],
            shift=shift,
            generator=generator,
        )
        images[rows] = images[rows] * (1 - mask) + painted * mask
    return images.clamp(0, 1)


def _pick(
    rgb: dict[str, tuple[float, float, float]], names: Sequence[str], index: Tensor
) -> Tensor:
    return torch.tensor([rgb[name] for name in names])[index]


def _jitter(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator) - 0.5


def _paint(
    color: Tensor,
    shape: Tensor,
    *,
    style: Tensor,
    size: Tensor,
    shift: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Colours (M, 3, SIZE, SIZE) and coverage (M, 1, SIZE, SIZE) of one object in each picture.

    color: (M, 3). shape, style, size: (M,) indices, -1 unmentioned. shift: (M,) pixels to the right.
    """
    m = len(color)
    free = 6.0 + torch.rand(m, generator=generator)
    radius = torch.where(size < 0, free, torch.where(size == SIZES.index("small"), 5.5, 10.5))
    r = (radius + _jitter(generator, m))[:, None, None]
    freedom = torch.where(shift == 0, 4.0, 1.5)
    line = torch.arange(SIZE) + 0.5 - SIZE / 2
    x = line[None, None, :] - (shift + _jitter(generator, m) * freedom)[:, None, None]
    y = line[None, :, None] - (_jitter(generator, m) * 4.0)[:, None, None]
    distances = torch.stack(torch.broadcast_tensors(*(DISTANCES[s](x, y, r) for s in SHAPES)))
    distance = distances[shape, torch.arange(m)]
    fill = (color + _jitter(generator, m, 3) * 0.08)[:, :, None, None]
    outlined = (style == STYLES.index("outlined"))[:, None, None]
    mask = (0.5 - torch.where(outlined, distance - 1.6, distance)).clamp(0, 1)
    return _finish(fill, x + y, r, distance, style), mask[:, None]


def _finish(fill: Tensor, diagonal: Tensor, r: Tensor, distance: Tensor, style: Tensor) -> Tensor:
    """The four styles: plain; a dark rim; diagonal stripes; light from the upper left."""
    fill = fill.expand(-1, -1, SIZE, SIZE)
    stripes = ((diagonal * 1.1).sin() * 0.5 + 0.5)[:, None]
    light = (-diagonal / (2.2 * r)).clamp(-1, 1)[:, None]
    edge = (distance.clamp(-0.5, 0.5) + 0.5)[:, None]
    finished = {
        "striped": fill * (0.45 + 0.55 * stripes) + 0.25 * stripes,
        "shaded": fill * (0.75 + 0.45 * light) + 0.15 * light.clamp(min=0),
        "outlined": fill * (1 - edge) + edge * 0.02,
    }
    for name, picture in finished.items():
        fill = torch.where((style == STYLES.index(name))[:, None, None, None], picture, fill)
    return fill
