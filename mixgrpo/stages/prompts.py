"""The prompts of one dataset and split, deduplicated, with stable ids.

A dataset is a key of SOURCES; a new one is one function and one line.
"""

from collections.abc import Callable
from pathlib import Path

from mixgrpo.errors import UserError
from mixgrpo.prompts import prompt_id, write_prompts
from mixgrpo.records import Prompt
from mixgrpo.tiny.grammar import parse, sample_captions

SPLITS = ("train", "validation", "test")


def tiny(dataset: str, split: str, num: int) -> list[Prompt]:
    """Captions of the tiny world; validation and test hold (colour, shape) pairs that training never shows."""
    captions = sample_captions(dataset, split, num)
    styles = [parse(text).style or "plain" for text in captions]
    return [
        Prompt(prompt_id(dataset, text), text, style)
        for text, style in zip(captions, styles, strict=True)
    ]


SOURCES: dict[str, Callable[[str, str, int], list[Prompt]]] = {"tiny_hpd": tiny, "tiny_pick": tiny}


def run(*, dataset: str, split: str, num: int, output: Path) -> None:
    """Write `num` prompts of `split`."""
    if dataset not in SOURCES:
        raise UserError(f"dataset {dataset!r} is unknown. There are: {', '.join(SOURCES)}.")
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown. There are: {', '.join(SPLITS)}.")
    if num < 1:
        raise UserError(f"{dataset} {split}: asked for {num} prompts, wanted at least 1.")
    write_prompts(output, SOURCES[dataset](dataset, split, num))
