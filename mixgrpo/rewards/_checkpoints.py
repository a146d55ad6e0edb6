"""Files of weights: found at a path or downloaded at a pinned revision, checked, and read without pickle.

Where the sha256 of a hub file is known, it is checked. Every failure is a UserError with the file, what is wrong with
it and what to do.
"""

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mixgrpo.errors import UserError
from mixgrpo.hub import HubFile, fetch_file

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BLOCK = 1 << 22
"""Bytes read at once for a checksum."""


@dataclass(frozen=True)
class Checkpoint:
    """The file or files of one network's weights on this machine."""

    files: tuple[Path, ...]
    source: str
    """Where they come from: hub file and commit, or local path."""

    @property
    def sha256(self) -> str:
        """Of the file; of several files, one of each, joined by spaces in the order of their names."""
        return " ".join(sha256_of(file) for file in sorted(self.files))


def locate(reward: str, path: str | None, hub: HubFile) -> Checkpoint:
    """The checkpoint at `path`, a file or the directory with `hub.name` in it; None: from the hub.

    What is downloaded must have the pinned checksum, if there is one. UserError when there is no such file.
    """
    if path is None:
        file = download(reward, hub)
        check_sha256(reward, file, hub)
        return Checkpoint((file,), str(hub))
    file = Path(path)
    if file.is_dir():
        file = file / hub.name
    if not file.is_file():
        raise UserError(
            f"reward {reward}: no file {file}. Wanted {hub}: correct `path`, set it to null to have "
            f"it downloaded, or fetch it yourself: {hub.command}."
        )
    return Checkpoint((file,), str(file))


def download(reward: str, hub: HubFile) -> Path:
    """The hub file in the local cache, downloaded if it is not there. UserError says why it cannot be had."""
    return fetch_file(hub, who=f"reward {reward}")


def check_sha256(reward: str, file: Path, hub: HubFile) -> None:
    """UserError when `hub` has a checksum and the file another."""
    if hub.sha256 is not None and sha256_of(file) != hub.sha256:
        raise UserError(
            f"reward {reward}: {file} has sha256 {sha256_of(file)}, wanted {hub.sha256}, that of "
            f"{hub}. It is damaged or another version: delete it and download it again."
        )


def sha256_of(file: Path) -> str:
    """Of the file's bytes, in hexadecimal; computed once for a path, size and time of change."""
    state = file.resolve().stat()
    return _sha256(file.resolve(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(file: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def load_state_dict(reward: str, file: Path) -> dict[str, Tensor]:
    """Tensors by name from .safetensors, or from a .pt or .bin that holds tensors only, on the CPU.

    A dictionary under the key `state_dict` is taken out of its wrapping, and the prefix `module.` of every name off.
    """
    head = _head(reward, file)
    try:
        data = (
            load_file(file)
            if file.suffix == ".safetensors"
            else torch.load(
                file, map_location="cpu", weights_only=True, mmap=head.startswith(b"PK")
            )
        )
    except Exception as error:
        raise UserError(
            f"reward {reward}: {file} cannot be read ({_reason(file, head, error)}). Download it again, or "
            "give the `path` of another file."
        ) from None
    if isinstance(data, Mapping) and isinstance(data.get("state_dict"), Mapping):
        data = data["state_dict"]
    if (
        not isinstance(data, Mapping)
        or not data
        or not all(isinstance(v, Tensor) for v in data.values())
    ):
        raise UserError(
            f"reward {reward}: {file} holds {_kind(data)}, wanted tensors by name, alone or under the "
            "key 'state_dict'. Give the file of the weights, not of an optimizer or of a whole training."
        )
    return {str(name).removeprefix("module."): tensor for name, tensor in data.items()}


def _head(reward: str, file: Path) -> bytes:
    """First bytes; UserError for what is no file of weights at all, or one that was cut off."""
    with file.open("rb") as stream:
        head = stream.read(64)
    problem = None
    if not head:
        problem = "is empty"
    elif head.startswith(b"version https://git-lfs"):
        problem = "is a Git LFS pointer, not the weights (`git lfs pull` gets them)"
    elif head.lstrip().startswith((b"<", b"{\n", b'{"error')) and file.suffix != ".safetensors":
        problem = f"is a text that starts with {head[:20]!r}, not weights"
    elif head.startswith(b"PK") and not zipfile.is_zipfile(file):
        problem = "is truncated: the end of the file is missing"
    if problem is not None:
        raise UserError(f"reward {reward}: {file} {problem}. Download it again.")
    if head.startswith(b"PK"):
        _check_crc(reward, file)
    return head


def _check_crc(reward: str, file: Path) -> None:
    """A .pt file is a zip with a checksum for each tensor; UserError names the first that is wrong."""
    try:
        with zipfile.ZipFile(file) as parts:
            bad = parts.testzip()
    except Exception as error:
        bad = f"{type(error).__name__}: {error}"
    if bad is not None:
        raise UserError(f"reward {reward}: {file} is damaged (at {bad}). Download it again.")


def _reason(file: Path, head: bytes, error: Exception) -> str:
    text = str(error)
    if "Weights only load failed" in text or "weights_only" in text:
        if not head.startswith((b"PK", b"\x80")):
            return f"it is no file of torch.save: it starts with {head[:8]!r}"
        return "it holds Python objects beside tensors, and opening those could run any code"
    if isinstance(error, SafetensorError):
        return f"truncated or no safetensors file: {text}"
    return f"{type(error).__name__}: {(text.splitlines() or [''])[0]}"


def _kind(data: object) -> str:
    if not isinstance(data, Mapping):
        return f"an object of type {type(data).__name__}"
    return f"a dictionary with the keys {sorted(map(str, data))[:5]}"


def check_keys(reward: str, file: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """UserError unless `names` are exactly the `wanted` ones: the first few that differ are named."""
    missing, extra = sorted(set(wanted) - set(names)), sorted(set(names) - set(wanted))
    if missing or extra:
        said = [f"{len(missing)} are missing ({', '.join(missing[:3])}, ...)"] if missing else []
        said += [f"{len(extra)} are not known ({', '.join(extra[:3])}, ...)"] if extra else []
        raise UserError(
            f"reward {reward}: {file} is of another network: of its tensors {' and '.join(said)}. "
            "Give the `path` of this reward's own checkpoint."
        )


def dtype_of(reward: str, name: str) -> torch.dtype:
    """The dtype of the option `dtype`. UserError lists those there are."""
    if name not in DTYPES:
        raise UserError(
            f"reward {reward}: option dtype is {name!r}, wanted one of {', '.join(DTYPES)}."
        )
    return DTYPES[name]
