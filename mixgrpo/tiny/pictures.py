"""The captioned pictures that base and judges learn from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixgrpo.tiny.grammar import FORMS, SPLITS, captions, parse
from mixgrpo.tiny.render import labels, render

ONE_OBJECT_SHARE = 2 / 3


@dataclass(frozen=True)
class Pictures:
    """Pictures (N, 3, 32, 32) in [0, 1], their N captions, and labels (N, slots), -1 unmentioned."""

    images: Tensor
    captions: list[str]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.captions)


def draw(num: int, *, splits: tuple[str, ...]) -> Pictures:
    """`num` pictures of captions drawn with replacement: two thirds have one object.

    Uses torch's global stream: `fit.seeded` sets it.
    """
    num_one = round(num * ONE_OBJECT_SHARE)
    texts = []
    for dataset, count in zip(FORMS, (num_one, num - num_one), strict=True):
        pool = [caption for split in splits for caption in captions(dataset, split)]
        texts += [pool[i] for i in torch.randint(len(pool), (count,)).tolist()]
    attributes = [parse(text) for text in texts]
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ()).item()))
    return Pictures(render(attributes, generator), texts, labels(attributes))


def for_generator(num: int) -> Pictures:
    """What the base model sees: nothing held out."""
    return draw(num, splits=("train",))


def for_judges(num: int) -> Pictures:
    """What reward models see: every pair, held-out ones too."""
    return draw(num, splits=SPLITS)
