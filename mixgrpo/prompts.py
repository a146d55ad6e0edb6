"""Prompt files and the text embeddings made from them, row for row."""

import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mixgrpo.errors import UserError
from mixgrpo.files import atomic, write_with
from mixgrpo.records import Conditioning, Prompt

COLUMNS = ("id", "prompt", "style")
SHARED = "shared."
"""Prefix, in an embeddings file, of tensors that all prompts have in common."""


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


def write_embeddings(path: Path, cond: Conditioning, prompts: list[Prompt]) -> None:
    """Safetensors of `cond` (N rows), with the ids of the prompts as metadata."""
    metadata = {"prompt_ids": json.dumps([prompt.id for prompt in prompts])}
    named = {**cond.tensors, **{f"{SHARED}{name}": t for name, t in cond.shared.items()}}
    tensors = {name: tensor.contiguous() for name, tensor in named.items()}
    write_with(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))


def read_embeddings(path: Path, prompts: list[Prompt]) -> Conditioning:
    """Embeddings of exactly `prompts`, in their order. UserError when the file is of other prompts or damaged."""
    if not path.exists():
        raise UserError(f"embeddings {path} do not exist. `snakemake {path}` makes them.")
    try:
        with safe_open(path, framework="pt") as file:
            ids = json.loads((file.metadata() or {}).get("prompt_ids", "[]"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"embeddings {path} are corrupt or truncated ({error}). Delete the file and rerun."
        ) from None
    if ids != [prompt.id for prompt in prompts]:
        raise UserError(
            f"embeddings {path} are of {len(ids)} other prompts than the {len(prompts)} asked for. "
            "Delete the file and rerun: the workflow makes it from the prompts."
        )
    shared = {n.removeprefix(SHARED): t for n, t in tensors.items() if n.startswith(SHARED)}
    return Conditioning({n: t for n, t in tensors.items() if not n.startswith(SHARED)}, shared)
