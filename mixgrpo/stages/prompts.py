"""The prompts of one dataset and split, deduplicated, with stable ids.

A dataset is a key of SOURCES, or a text file of one's own with a prompt on each line.
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


def run(*, dataset: str, split: str, num: int, output: Path, file: Path | None = None) -> None:
    """Write `num` prompts of `split`: of a known source, or the first ones of the text file `file`."""
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown. There are: {', '.join(SPLITS)}.")
    if num < 1:
        raise UserError(f"{dataset} {split}: asked for {num} prompts, wanted at least 1.")
    if file is not None:
        write_prompts(output, own_prompts(file, dataset, num))
        return
    if dataset not in SOURCES:
        raise UserError(f"dataset {dataset!r} is unknown. There are: {', '.join(SOURCES)}.")
    write_prompts(output, SOURCES[dataset](dataset, split, num))


def own_prompts(file: Path, dataset: str, num: int) -> list[Prompt]:
    """The first `num` different lines of a text file, without blank ones and space around.

    UserError when it has fewer, or is not text.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file}: cannot be read as a text file of prompts ({error}). Save it as UTF-8, a prompt on each line."
        ) from None
    texts = list(dict.fromkeys(text for line in lines if (text := " ".join(line.split()))))
    if len(texts) < num:
        raise UserError(
            f"{file}: {len(texts)} different prompts, but the preset asks for {num}. Add lines, or lower `splits` of "
            f"the dataset {dataset}."
        )
    return [Prompt(prompt_id(dataset, text), text, "own") for text in texts[:num]]
