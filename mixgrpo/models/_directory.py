"""Directories in diffusers layout: found here or fetched from the hub, and checked before anything is loaded.

A directory is a folder for each part of the model. Its weights are safetensors, one file or several with an index.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from mixgrpo import files
from mixgrpo.config import ModelConfig
from mixgrpo.errors import UserError
from mixgrpo.hub import HubFolder, fetch_folder

WEIGHTS = ("diffusion_pytorch_model", "model")
"""What files of weights are called, of diffusers' models and of transformers'."""
CONFIGS = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}
"""The file that every such part has, by the part's name without its number; other parts have `config.json`."""
SAMPLE = 1 << 16
"""Bytes of the start, middle and end of a file of weights that tell it from another."""
LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Family:
    """What all checkpoints of one architecture have in common."""

    name: str
    pipeline: str
    """Class name in `model_index.json`."""
    transformer: str
    """Class name in `transformer/config.json`."""
    hub: str
    """The repository that the paper uses."""


TRAINED = ("transformer", "vae")
"""Parts that training and sampling need; text encoders are only in memory while `embed` runs."""


def find(config: ModelConfig, family: Family, parts: Sequence[str]) -> Path:
    """The checked directory of `config` with `parts`, fetched if it is on the hub. UserError says what is wrong."""
    path = Path(config.path)
    if config.revision is None or path.is_dir():
        check(path, family, parts)
        return path
    folder = HubFolder(config.path, config.revision, tuple(parts))
    path = fetch_folder(
        folder, who=f"model {config.name}", missing=lambda found: missing_files(found, parts)
    )
    check(path, family, parts)
    return path


def fingerprint(config: ModelConfig) -> str:
    """Changes when the base model does: the commit on the hub, or the content of the local directory."""
    path = Path(config.path)
    if config.revision is None or path.is_dir():
        return files.fingerprint(path)
    return f"{config.path}@{config.revision}"


def check(path: Path, family: Family, parts: Sequence[str]) -> None:
    """UserError unless `path` is a directory of `family` in which `parts` are whole."""
    if not path.is_dir():
        hub = "" if len(path.parts) != 2 else ", or set `revision` if it is a name on the hub"
        raise UserError(
            f"model directory {path} does not exist. For preset tiny, `make reproduce` makes it; otherwise correct "
            f"model.path{hub}."
        )
    _check_family(path, family)
    if missing := missing_files(path, parts):
        wanted = " ".join(f"--include '{part}/*'" for part in parts)
        raise UserError(
            f"model directory {path} is not a whole {family.name} diffusers directory: it lacks "
            f"{', '.join(missing[:4])}. An interrupted download goes on with `hf download {family.hub} {wanted} "
            f"--local-dir {path}`; preset tiny makes its own again when the directory is deleted."
        )
    for part in parts:
        for file in _weights(path / part):
            _check_whole(file)


def missing_files(path: Path, parts: Sequence[str]) -> list[str]:
    """What `path` lacks to hold all of `parts`, relative to it."""
    return [str(file.relative_to(path)) for part in parts for file in _missing(path / part)]


def identity(path: Path) -> str:
    """12 hex digits that tell the transformer's weights from others; a copy of the directory has the same.

    By size and samples of each file: all of 24 GB would take minutes.
    """
    digest = hashlib.sha256()
    for file in _weights(path / "transformer"):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as stream:
            for start in (0, size // 2, max(size - SAMPLE, 0)):
                stream.seek(start)
                digest.update(stream.read(SAMPLE))
    return digest.hexdigest()[:12]


def read_config(file: Path) -> dict[str, Any]:
    """The content of a part's json. UserError when it is damaged."""
    try:
        data = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}). Fetch or make it again.") from None
    if not isinstance(data, dict):
        raise UserError(f"{file}: wanted a JSON object, got {data!r}. Fetch or make it again.")
    return data


def _check_family(path: Path, family: Family) -> None:
    """By the index of the directory, or by the transformer alone where there is no index."""
    for file, wanted in (
        (path / "model_index.json", family.pipeline),
        (path / "transformer" / "config.json", family.transformer),
    ):
        if file.is_file() and (found := read_config(file).get("_class_name")) != wanted:
            raise UserError(
                f"model directory {path} is of another model family: {file.name} says {found}, wanted {wanted}. "
                f"Give the directory of a {family.name} model, such as {family.hub}, or correct model.name."
            )


def _missing(part: Path) -> Iterator[Path]:
    kind = part.name.split("_")[0]
    config = part / CONFIGS.get(kind, "config.json")
    if not config.is_file():
        yield config
    if kind == "tokenizer":
        if not any((part / name).is_file() for name in ("tokenizer.json", "spiece.model")) and not (
            (part / "vocab.json").is_file() and (part / "merges.txt").is_file()
        ):
            yield part / "tokenizer.json"
    elif kind != "scheduler":
        weights = list(_weights(part))
        name = WEIGHTS[part.name.startswith("text_encoder")]
        yield from (file for file in weights if not file.is_file())
        if not weights:
            yield part / f"{name}.safetensors"


def _weights(part: Path) -> Iterator[Path]:
    """Files of weights of a part, whether or not they are there; none when there is neither a file nor an index."""
    for name in WEIGHTS:
        index, single = (
            part / f"{name}.safetensors.index.json",
            part / f"{name}.safetensors",
        )
        if single.is_file():
            yield single
        elif index.is_file():
            shards = set(read_config(index).get("weight_map", {}).values())
            yield from (part / shard for shard in sorted(shards))


def _check_whole(file: Path) -> None:
    """UserError when a file of weights is a pointer or was cut off: its header says how long it is."""
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(
                f"{file} is a Git LFS pointer, not the weights. `git lfs pull` gets them."
            )
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"model directory {file.parent.parent} cannot be loaded: {file.name} in {file.parent.name}/ is truncated "
            f"or damaged ({error}). Delete the file and fetch it again; preset tiny makes its own again when the "
            "directory is deleted."
        ) from None
