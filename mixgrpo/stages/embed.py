"""Text embeddings of a prompts file, made once; the text encoders are in memory nowhere else.

Made in shards, which are joined at the end: an interrupted run keeps those that are whole.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from mixgrpo.config import ModelConfig
from mixgrpo.devices import own_device
from mixgrpo.errors import UserError
from mixgrpo.locks import locked
from mixgrpo.models import TextEncoder, base_fingerprint, load_text_encoder
from mixgrpo.prompts import join_embeddings, read_prompts, write_embeddings
from mixgrpo.provenance import digest
from mixgrpo.records import Prompt

SHARD = 256
"""Prompts in a shard: of FLUX.1, 1 to 2 GB."""


def run(
    *,
    model: str,
    base: Path,
    prompts: Path,
    output: Path,
    revision: str | None = None,
    precision: str = "fp32",
) -> None:
    """Embed `prompts` by the text encoders of the base model; write safetensors.

    base, revision, precision: `path`, `revision` and `text_precision` of mixgrpo/config.py's ModelConfig.
    """
    config = read_config(model, base, revision, precision)
    rows = read_prompts(prompts)
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output.parent / f".{output.name}.lock"):
        shards = output.parent / f".{output.name}.{key_of(config, rows)}.partial"
        for old in output.parent.glob(f".{output.name}.*.partial"):
            if old != shards:
                shutil.rmtree(old)
        made = make_shards(config, rows, shards)
        join_embeddings(output, made, rows)
        shutil.rmtree(shards)


def read_config(model: str, base: Path, revision: str | None, precision: str) -> ModelConfig:
    """The base model that the command line names. UserError when it cannot be."""
    if precision not in ("fp32", "bf16"):
        raise UserError(f"precision {precision!r} is unknown. There are: fp32, bf16.")
    try:
        return ModelConfig(
            name=model,
            path=str(base),
            revision=revision,
            text_precision="bf16" if precision == "bf16" else "fp32",
        )
    except ValueError as error:
        raise UserError(f"base model {base}: {error}") from None


def key_of(config: ModelConfig, prompts: Sequence[Prompt]) -> str:
    """What a shard belongs to: everything that its numbers depend on."""
    texts = [(prompt.id, prompt.text) for prompt in prompts]
    code = digest("mixgrpo.stages.embed", f"mixgrpo.models.{config.name}")
    facts = json.dumps([asdict(config), base_fingerprint(config), texts, SHARD, code])
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def make_shards(config: ModelConfig, prompts: Sequence[Prompt], folder: Path) -> list[Path]:
    """The shards of all `prompts` in `folder`; text encoders are loaded only if one is not there."""
    parts = {
        folder / f"{start // SHARD:05}.safetensors": prompts[start : start + SHARD]
        for start in range(0, len(prompts), SHARD)
    }
    todo = {path: part for path, part in parts.items() if not is_whole(path)}
    progress = tqdm(
        total=len(prompts),
        initial=len(prompts) - sum(map(len, todo.values())),
        unit="prompt",
        mininterval=2,
    )
    encode: TextEncoder | None = None
    for path, part in todo.items():
        if encode is None:
            device = own_device()
            encode = load_text_encoder(config, device)
        write_embeddings(path, encode([prompt.text for prompt in part]), part)
        progress.update(len(part))
    progress.close()
    return list(parts)


def is_whole(shard: Path) -> bool:
    """Whether it is there; one that the disk has damaged since is made again."""
    if not shard.exists():
        return False
    try:
        with safe_open(shard, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False
