"""What can be said in the tiny world: captions, their attributes, and who sees which of them.

Two datasets. `tiny_hpd` stands where the paper has HPDv2: one object, four styles, any ground.
`tiny_pick` stands where it has Pick-a-Pic: two objects, light grounds, no style word. Some (colour,
shape) pairs are held out: no training picture and no training prompt has them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

from mixgrpo.errors import UserError

STYLES = ("flat", "outlined", "striped", "shaded")
SIZES = ("small", "large")
COLORS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan")
SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")
GROUNDS = ("white", "gray", "black", "pink", "navy")
LIGHT_GROUNDS = ("white", "gray", "pink")
COUNTS = ("one", "two")

SLOTS = {
    "style": STYLES,
    "size": SIZES,
    "color": COLORS,
    "shape": SHAPES,
    "second_color": COLORS,
    "second_shape": SHAPES,
    "ground": GROUNDS,
    "count": COUNTS,
}
"""What a judge can ask of a picture, and the possible answers. `count` is never a word of a caption."""

FORMS = {
    "tiny_hpd": "{style} {size} {color} {shape} on {ground}",
    "tiny_pick": "{color} {shape} and {second_color} {second_shape} on {ground}",
}
"""The caption form of each dataset; the second object stands to the right of the first."""

SPLITS = ("train", "validation", "test")
HELD_OUT_PAIRS = {
    "test": (
        ("green", "circle"),
        ("blue", "square"),
        ("purple", "triangle"),
        ("orange", "diamond"),
        ("yellow", "cross"),
        ("cyan", "ring"),
    ),
    "validation": (("red", "triangle"), ("purple", "square"), ("yellow", "ring")),
}
"""(colour, shape) pairs of one split alone: every caption of that split has one, no other split any."""

WORDS = tuple(sorted({*STYLES, *SIZES, *COLORS, *SHAPES, *GROUNDS, "on", "and"}))
"""Every word a caption can have."""


@dataclass(frozen=True)
class Attributes:
    """What a caption says. None: it does not say."""

    color: str
    shape: str
    ground: str
    style: str | None = None
    size: str | None = None
    second_color: str | None = None
    second_shape: str | None = None

    @property
    def count(self) -> str:
        """How many objects there are, a key of `SLOTS` like the fields."""
        return "one" if self.second_shape is None else "two"

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """The (colour, shape) of each object, left to right."""
        if self.second_color is None or self.second_shape is None:
            return ((self.color, self.shape),)
        return ((self.color, self.shape), (self.second_color, self.second_shape))

    def labels(self) -> tuple[int, ...]:
        """Per slot the index of the answer, -1 where the caption does not say.

        >>> parse("flat small red circle on white").labels()
        (0, 0, 0, 0, -1, -1, 0, 0)
        """
        values = {slot: getattr(self, slot) for slot in SLOTS}
        return tuple(
            -1 if values[slot] is None else words.index(values[slot])
            for slot, words in SLOTS.items()
        )


def parse(caption: str) -> Attributes:
    """Attributes of a caption of either dataset; UserError when it is outside the grammar.

    >>> parse("red circle and cyan ring on pink").pairs
    (('red', 'circle'), ('cyan', 'ring'))
    """
    for form in FORMS.values():
        values = _match(caption.split(), form.split())
        if values is not None:
            return Attributes(**values)
    raise UserError(
        f"caption {caption!r} is outside the grammar of the tiny world. Wanted "
        + " or ".join(f"'{form}'" for form in FORMS.values())
        + ", with "
        + "; ".join(f"{slot}: {', '.join(SLOTS[slot])}" for slot in list(SLOTS)[:4])
        + f"; ground: {', '.join(GROUNDS)}."
    )


def _match(words: list[str], form: list[str]) -> dict[str, str] | None:
    if len(words) != len(form):
        return None
    values = {}
    for word, part in zip(words, form, strict=True):
        slot = part.strip("{}")
        if word not in (SLOTS[slot] if part.startswith("{") else (part,)):
            return None
        if part.startswith("{"):
            values[slot] = word
    return values


def _split_of(attributes: Attributes) -> str | None:
    held_out = {
        split
        for split, pairs in HELD_OUT_PAIRS.items()
        if any(pair in pairs for pair in attributes.pairs)
    }
    if len(held_out) > 1:
        return None
    return held_out.pop() if held_out else "train"


def _sentences(dataset: str) -> Iterator[str]:
    form = FORMS[dataset]
    slots = [slot for slot in SLOTS if f"{{{slot}}}" in form]
    answers = SLOTS | ({"ground": LIGHT_GROUNDS} if dataset == "tiny_pick" else {})
    for words in product(*(answers[slot] for slot in slots)):
        yield form.format(**dict(zip(slots, words, strict=True)))


@cache
def captions(dataset: str, split: str) -> tuple[str, ...]:
    """All captions of one split of one dataset, each once, in a fixed order.

    Two objects of one caption differ in colour or shape.
    """
    if dataset not in FORMS or split not in SPLITS:
        raise UserError(
            f"dataset {dataset!r}, split {split!r}: the tiny world has the datasets "
            f"{', '.join(FORMS)} with the splits {', '.join(SPLITS)}."
        )
    parsed = ((caption, parse(caption)) for caption in _sentences(dataset))
    return tuple(
        caption
        for caption, attributes in parsed
        if len(set(attributes.pairs)) == len(attributes.pairs) and _split_of(attributes) == split
    )


def sample_captions(dataset: str, split: str, num: int, seed: int = 0) -> list[str]:
    """`num` different captions, drawn by `seed`; a larger `num` adds to the same first ones."""
    pool = captions(dataset, split)
    if not 0 < num <= len(pool):
        raise UserError(
            f"{num} prompts of {dataset} {split}: wanted 1 to {len(pool)}, the number of different "
            "captions there are. Change the preset's number of prompts."
        )
    return sorted(pool, key=lambda c: hashlib.sha256(f"{seed} {c}".encode()).digest())[:num]
