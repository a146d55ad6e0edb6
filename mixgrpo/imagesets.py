"""What `generate` and `score` leave on disk, and the keys that tell whether it is still current.

An image set is a directory `{dataset}_{split}/p{p_mix}/` of pictures with a manifest, written whole or
not at all. Its key covers everything its pictures depend on, so that a rerun makes only what is missing.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mixgrpo.errors import UserError
from mixgrpo.files import write_text, write_with


@dataclass(frozen=True, order=True)
class SetName:
    """Which pictures: prompts of `dataset` and `split`, at hybrid share `p_mix`."""

    dataset: str
    split: str
    p_mix: float

    @property
    def directory(self) -> str:
        """Below the cell's folder."""
        return f"{self.dataset}_{self.split}/p{self.p_mix:.2f}"

    @property
    def prompts(self) -> str:
        """Stem of the prompts and embeddings files."""
        return f"{self.dataset}_{self.split}"


def key_of(facts: Mapping[str, Any]) -> str:
    """A short digest of `facts`."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """The manifest of a finished image set; None when there is none."""
    path = directory / "manifest.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is corrupt ({error}). Delete {directory} and rerun: it is made again."
        ) from None


def write_index(path: Path, field: str, entries: list[dict[str, Any]]) -> None:
    """The declared output of a stage: what it made, {field: entries}."""
    write_text(path, json.dumps({field: entries}, indent=1) + "\n")


def read_index(path: Path, field: str) -> list[dict[str, Any]]:
    """Entries of an index that `write_index` wrote."""
    try:
        return json.loads(path.read_text())[field]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. `snakemake {path}` makes it.") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is corrupt ({error!r}). Delete it and rerun.") from None


def save_image(path: Path, image: Tensor) -> None:
    """PNG of an image (3, H, W) in [0, 1]."""
    pixels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).cpu().numpy()
    write_with(path, lambda temporary: Image.fromarray(pixels).save(temporary, format="PNG"))


def load_images(paths: list[Path]) -> Tensor:
    """(B, 3, H, W) in [0, 1] of pictures of one size; UserError names the one that cannot be read."""
    images = []
    for path in paths:
        try:
            images.append(read_pixels(path))
        except ValueError as error:
            raise UserError(
                f"picture {path} cannot be read ({error}). Delete its folder {path.parent} and rerun: it is made again."
            ) from None
    return torch.stack(images)


def read_pixels(path: Path) -> Tensor:
    """(3, H, W) in [0, 1] of any picture: grey is repeated, transparency left out. ValueError when it is none."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):  # PIL's own conversion to RGB would clip it
                grey = np.asarray(image, dtype=np.float32) / 65535
                return torch.from_numpy(grey).expand(3, -1, -1)
            if image.mode in ("I", "F"):
                raise ValueError(f"pixels of PIL's mode {image.mode}, wanted 8 or 16 bits each")
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from None
    return torch.from_numpy(pixels / 255).permute(2, 0, 1)
