"""Pictures of an image index: images/{cell}/seed{seed}/index.json and the manifests it points to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mixgrpo.errors import UserError
from mixgrpo.report.inputs import LENIENT, read_json


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One set: pictures of the prompts of `dataset` and `split`, at `p_mix`."""

    dataset: str
    split: str
    p_mix: float
    directory: str
    """Relative to the index's folder."""

    __pydantic_config__ = LENIENT


@dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """All sets of one cell and seed."""

    sets: tuple[ImageSet, ...]

    __pydantic_config__ = LENIENT


@dataclass(frozen=True, kw_only=True)
class ImageEntry:
    """One picture of a set."""

    prompt_id: str
    seed: int
    """Of its noise."""
    file: str

    __pydantic_config__ = LENIENT


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All pictures of a set."""

    images: tuple[ImageEntry, ...]

    __pydantic_config__ = LENIENT


@dataclass(frozen=True)
class Picture:
    """One picture: `pixels` (S, S, 3) uint8, and the seed of its noise."""

    pixels: np.ndarray
    noise_seed: int


def read_pictures(
    index: Path, prompt_ids: Sequence[str], *, dataset: str, split: str, p_mix: float, size: int
) -> list[Picture]:
    """Pictures of `prompt_ids`, in order, resampled to `size` pixels. UserError names what is missing."""
    remedy = f"`snakemake {index}` makes it"
    folder = _directory(index, dataset, split, p_mix, remedy)
    manifest = read_json(folder / "manifest.json", Manifest, remedy=remedy)
    entries = {entry.prompt_id: entry for entry in manifest.images}
    absent = [prompt_id for prompt_id in prompt_ids if prompt_id not in entries]
    if absent:
        raise UserError(
            f"{folder}/manifest.json: no picture of prompt {absent[0]}, nor of {len(absent) - 1} other "
            f"prompts that the figure shows. Delete {folder} and {index}; {remedy}."
        )
    return [
        Picture(_pixels(folder / entries[i].file, size, remedy), entries[i].seed)
        for i in prompt_ids
    ]


def _directory(index: Path, dataset: str, split: str, p_mix: float, remedy: str) -> Path:
    for found in read_json(index, ImageIndex, remedy=remedy).sets:
        if (found.dataset, found.split) == (dataset, split) and math.isclose(found.p_mix, p_mix):
            return index.parent / found.directory
    raise UserError(
        f"{index}: no set {dataset} {split} at p_mix = {p_mix:g}, which the figure shows. Delete {index}; "
        f"{remedy}, of all sets that tables and figures ask for."
    )


def _pixels(path: Path, size: int, remedy: str) -> np.ndarray:
    """Lanczos to `size`: smooth edges for the tiny world's 32 pixels, no aliasing for 1024."""
    try:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS)
            return np.asarray(resized)
    except (OSError, SyntaxError) as error:
        raise UserError(
            f"{path}: not a whole picture ({error}). Delete {path.parent}; {remedy}."
        ) from None
