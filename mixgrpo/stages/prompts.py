"""The prompts of one dataset and split, deduplicated, with stable ids.

A dataset is a key of SOURCES, or a file of one's own: text with a prompt on each line, or JSON with a list of
prompts, or of records that have a `prompt` or `caption`, such as HPDv2's train.json.
"""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from mixgrpo.errors import UserError
from mixgrpo.prompts import prompt_id, write_prompts
from mixgrpo.published_prompts import PUBLISHED, is_copy_of, published_lines, spread_choice
from mixgrpo.records import Prompt
from mixgrpo.tiny.grammar import parse, sample_captions

SPLITS = ("train", "validation", "test")
FIELDS = ("prompt", "caption")
"""Of a JSON record, what may hold its prompt."""


def tiny(dataset: str, split: str, num: int) -> list[Prompt]:
    """Captions of the tiny world; validation and test hold (colour, shape) pairs that training never shows."""
    captions = sample_captions(dataset, split, num)
    styles = [parse(text).style or "plain" for text in captions]
    return [
        Prompt(prompt_id(dataset, text), text, style)
        for text, style in zip(captions, styles, strict=True)
    ]


def published(dataset: str, split: str, num: int, copy: Path | None = None) -> list[Prompt]:
    """`num` of the paper's prompts of the split. copy: a local file with the published content.

    Validation prompts are of the training file too, chosen from its other end: they are different ones as long as
    both together are no more than the file has.
    """
    part = "train" if split == "validation" else split
    prompts = cleaned(dataset, published_lines(PUBLISHED[dataset, part], copy))
    if len(prompts) < num:
        raise UserError(
            f"{dataset} {split} has {len(prompts)} different prompts, but the preset asks for {num}. "
            "Lower its `splits`."
        )
    texts = [prompt.text for prompt in prompts]
    return [prompts[i] for i in spread_choice(texts, num, from_end=split == "validation")]


SOURCES: dict[str, Callable[[str, str, int], list[Prompt]]] = {
    "tiny_hpd": tiny,
    "tiny_pick": tiny,
    "hpdv2": published,
    "pick_a_pic": published,
}


def run(*, dataset: str, split: str, num: int, output: Path, file: Path | None = None) -> None:
    """Write `num` prompts of `split`: of a known source, or the first ones of the file `file`."""
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown. There are: {', '.join(SPLITS)}.")
    if num < 1:
        raise UserError(f"{dataset} {split}: asked for {num} prompts, wanted at least 1.")
    if file is not None:
        part = "train" if split == "validation" else split
        same = is_copy_of(file, PUBLISHED.get((dataset, part)))
        source = partial(published, copy=file) if same else partial(own_prompts, file)
        write_prompts(output, source(dataset, split, num))
        return
    if dataset not in SOURCES:
        raise UserError(f"dataset {dataset!r} is unknown. There are: {', '.join(SOURCES)}.")
    write_prompts(output, SOURCES[dataset](dataset, split, num))


def own_prompts(file: Path, dataset: str, split: str, num: int) -> list[Prompt]:
    """The first `num` different prompts of a file of one's own. UserError when it has fewer, or cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
        lines = json_prompts(json.loads(text)) if file.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file}: cannot be read as a file of prompts ({error}). Save it as UTF-8 text, a prompt on each line, or "
            f"as JSON (.json), a list of prompts or of records with {' or '.join(FIELDS)}."
        ) from None
    prompts = cleaned(dataset, ((line, "own") for line in lines))
    if len(prompts) < num:
        raise UserError(
            f"{file}: {len(prompts)} different prompts, but the preset asks for {num}. Add some, or lower `splits` of "
            f"the dataset {dataset}, {split}."
        )
    return prompts[:num]


def json_prompts(data: object) -> list[str]:
    """Prompts of a list of strings or records. ValueError names the first entry that is neither.

    >>> json_prompts(["a", {"caption": "b"}])
    ['a', 'b']
    """
    if not isinstance(data, list):
        raise ValueError(f"it holds a {type(data).__name__}, not a list")
    found = []
    for number, entry in enumerate(data):
        fields = [entry[key] for key in FIELDS if key in entry] if isinstance(entry, dict) else []
        text = fields[0] if fields else entry
        if not isinstance(text, str):
            raise ValueError(f"entry {number} is {str(entry)[:80]}")
        found.append(text)
    return found


def cleaned(dataset: str, lines: Iterable[tuple[str, str]]) -> list[Prompt]:
    """Prompts of (text, style): single spaces, without blank lines and repeats."""
    styles: dict[str, str] = {}
    for line, style in lines:
        if text := " ".join(line.split()):
            styles.setdefault(text, style)
    return [Prompt(prompt_id(dataset, text), text, style) for text, style in styles.items()]
