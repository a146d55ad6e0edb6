"""Prompt files and the text embeddings made from them, row for row."""

import contextlib
import csv
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mixgrpo.errors import UserError
from mixgrpo.files import atomic, write_with
from mixgrpo.records import Conditioning, Prompt

COLUMNS = ("id", "prompt", "style")
SHARED = "shared."
"""Prefix, in an embeddings file, of tensors that all prompts have in common."""
ITEM_SIZES = {"F32": 4, "BF16": 2}
"""Bytes of a number, by the name of its kind in a safetensors header."""


def prompt_id(dataset: str, text: str) -> str:
    """An id that depends on the dataset and the text alone."""
    return f"{dataset}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> None:
    """Tab-separated: id, prompt, style."""
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((prompt.id, prompt.text, prompt.style) for prompt in prompts)


def read_prompts(path: Path) -> list[Prompt]:
    """All rows. UserError for a missing, empty or malformed file and for duplicate ids."""
    if not path.exists():
        raise UserError(f"prompts file {path} does not exist. `snakemake {path}` makes it.")
    with path.open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise UserError(
            f"{path}: the first line is {rows[:1]}, wanted the columns {', '.join(COLUMNS)}, tab-separated."
        )
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(COLUMNS) or not row[0] or not row[1].strip():
            raise UserError(
                f"{path}, line {number}: got {row}, wanted an id, a prompt that is not blank, a style."
            )
    prompts = [Prompt(*row) for row in rows[1:]]
    if not prompts:
        raise UserError(
            f"{path}: no prompts. A run needs at least one; ask for more in the preset's datasets."
        )
    if len({prompt.id for prompt in prompts}) != len(prompts):
        raise UserError(
            f"{path}: some ids stand twice. Delete the file; the workflow makes it again."
        )
    return prompts


class Embeddings:
    """The embeddings of a prompts file, left on disk: rows are read when they are taken.

    9,600 prompts of FLUX.1 take 40 to 80 GB, a batch of them a few MB.
    """

    def __init__(self, path: Path, prompts: Sequence[Prompt]) -> None:
        """UserError when the file is missing, damaged, or of other prompts than these, in this order."""
        if not path.exists():
            raise UserError(f"embeddings {path} do not exist. `snakemake {path}` makes them.")
        try:
            self._file = safe_open(path, framework="pt")
            ids = json.loads((self._file.metadata() or {}).get("prompt_ids", "[]"))
            names = list(self._file.keys())
            self.shared = {
                name.removeprefix(SHARED): self._file.get_tensor(name)
                for name in names
                if name.startswith(SHARED)
            }
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(
                f"embeddings {path} are corrupt or truncated ({error}). Delete the file and rerun."
            ) from None
        if ids != [prompt.id for prompt in prompts]:
            raise UserError(
                f"embeddings {path} are of {len(ids)} other prompts than the {len(prompts)} asked for. "
                "Delete the file and rerun: the workflow makes it from the prompts."
            )
        self._rows = {
            name: self._file.get_slice(name) for name in names if not name.startswith(SHARED)
        }
        self._length = len(ids)

    def __len__(self) -> int:
        return self._length

    def take(self, index: Tensor) -> Conditioning:
        """Rows `index` (N,), on the CPU."""
        rows = index.tolist()
        if not rows:
            return Conditioning({name: part[:0] for name, part in self._rows.items()}, self.shared)
        return Conditioning(
            {
                name: torch.cat([part[row : row + 1] for row in rows])
                for name, part in self._rows.items()
            },
            self.shared,
        )


def read_embeddings(path: Path, prompts: Sequence[Prompt]) -> Conditioning:
    """All of them at once, for files that fit in memory."""
    return Embeddings(path, prompts).take(torch.arange(len(prompts)))


def write_embeddings(path: Path, cond: Conditioning, prompts: Sequence[Prompt]) -> None:
    """Safetensors of `cond` (N rows), with the ids of the prompts as metadata."""
    named = {**cond.tensors, **{f"{SHARED}{name}": t for name, t in cond.shared.items()}}
    tensors = {name: tensor.contiguous() for name, tensor in named.items()}
    write_with(path, lambda temporary: save_file(tensors, temporary, metadata=_metadata(prompts)))


def join_embeddings(path: Path, shards: Sequence[Path], prompts: Sequence[Prompt]) -> None:
    """One file, as `write_embeddings` would write it, of the rows of `shards` in order, a shard at a time in memory.

    The shards are safetensors of the same tensors, together of as many rows as there are prompts.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(safe_open(shard, framework="pt")) for shard in shards]
        header: dict[str, Any] = {"__metadata__": _metadata(prompts)}
        sources, end = [], 0
        for name in files[0].keys():  # noqa: SIM118
            used = files[:1] if name.startswith(SHARED) else files
            shapes = [file.get_slice(name).get_shape() for file in used]
            shape = [sum(rows for rows, *_ in shapes), *shapes[0][1:]]
            assert name.startswith(SHARED) or shape[0] == len(prompts), (name, shape)
            dtype = files[0].get_slice(name).get_dtype()
            start, end = end, end + math.prod(shape) * ITEM_SIZES[dtype]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
            sources += [(file, name) for file in used]
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with atomic(path) as temporary, temporary.open("wb") as output:
            output.write(len(text).to_bytes(8, "little") + text)
            for file, name in sources:
                output.write(file.get_tensor(name).contiguous().view(torch.uint8).numpy().data)


def _metadata(prompts: Sequence[Prompt]) -> dict[str, str]:
    return {"prompt_ids": json.dumps([prompt.id for prompt in prompts])}
