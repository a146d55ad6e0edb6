"""Pictures of a cell for evaluation: hybrid inference over prompts, the same noise for every cell."""

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from mixgrpo.algorithm.schedule import SCHEDULES
from mixgrpo.config import STRICT, Settings, read_settings
from mixgrpo.devices import own_device
from mixgrpo.errors import UserError
from mixgrpo.files import fingerprint, write_text
from mixgrpo.imagesets import SetName, key_of, read_manifest, save_image, write_index
from mixgrpo.models import Policy, base_fingerprint, computing, dtype_of, load_policy
from mixgrpo.prompts import Embeddings, read_prompts
from mixgrpo.provenance import digest
from mixgrpo.records import Prompt
from mixgrpo.training.hybrid import sample_hybrid
from mixgrpo.training.randomness import normal


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What to generate: `images/{cell}/seed{seed}/evaluation.json`."""

    num_steps: int
    shift: float
    seed: int
    """Of the evaluation noise, which depends on it and the prompt alone."""
    batch_size: int
    sets: list[SetName]
    resolution: int | None = None
    """Height and width of the pictures, pixels; None is that of training."""

    __pydantic_config__ = STRICT


def run(
    *,
    settings: Path,
    evaluation: Path,
    model: Path | None,
    prompts: Path,
    embeddings: Path,
    index: Path,
) -> None:
    """Make every image set of `evaluation` that is missing or stale; write the index of all.

    model: tuned weights, None for the base model itself. prompts, embeddings: directories.
    """
    config = read_settings(settings)
    wanted = read_evaluation(evaluation)
    if wanted.resolution is not None:
        config = replace(config, model=replace(config.model, resolution=wanted.resolution))
    device = own_device()
    facts = facts_of(config, wanted, model)
    stale: dict[str, list[SetName]] = {}
    keys: dict[SetName, str] = {}
    for name in wanted.sets:
        text = fingerprint(embeddings / f"{name.prompts}.safetensors")
        keys[name] = key_of({**facts, **asdict(name), "embeddings": text})
        manifest = read_manifest(index.parent / name.directory)
        if manifest is None or manifest["key"] != keys[name]:
            stale.setdefault(name.prompts, []).append(name)
    if stale:
        base, policy = load_models(config, model, device)
        for stem, names in stale.items():
            rows = read_prompts(prompts / f"{stem}.tsv")
            cond = Embeddings(embeddings / f"{stem}.safetensors", rows)
            generate(
                policy,
                base,
                rows,
                cond,
                wanted,
                names,
                keys,
                schedule=config.model.schedule,
                precision=config.training.precision,
                folder=index.parent,
                device=device,
            )
    write_index(index, "sets", [describe(index.parent, name) for name in wanted.sets])


def facts_of(config: Settings, wanted: Evaluation, model: Path | None) -> dict[str, Any]:
    """What the pictures of every set depend on."""
    return {
        "base": base_fingerprint(config.model),
        "model": fingerprint(model) if model else None,
        "guidance": config.model.guidance,
        "resolution": config.model.resolution,
        "schedule": config.model.schedule,
        "precision": config.training.precision,
        "num_steps": wanted.num_steps,
        "shift": wanted.shift,
        "seed": wanted.seed,
        "code": digest("mixgrpo.stages.generate", f"mixgrpo.models.{config.model.name}"),
    }


def read_evaluation(path: Path) -> Evaluation:
    """UserError names what is wrong in the file."""
    try:
        return TypeAdapter(Evaluation).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{path}: not an evaluation plan: {error}") from None


def load_models(
    config: Settings, model: Path | None, device: torch.device
) -> tuple[Policy, Policy]:
    """(base, tuned); one and the same when there are no tuned weights. Frozen, in the precision of training."""
    dtype = dtype_of(config.training.precision)
    base = load_policy(config.model, device, dtype=dtype)
    base.network.eval()
    if model is None:
        return base, base
    policy = load_policy(config.model, device, dtype=dtype)
    policy.load_weights(model)
    policy.network.eval()
    return base, policy


def generate(
    policy: Policy,
    base: Policy,
    prompts: list[Prompt],
    cond: Embeddings,
    wanted: Evaluation,
    names: list[SetName],
    keys: dict[SetName, str],
    *,
    schedule: str,
    precision: str,
    folder: Path,
    device: torch.device,
) -> None:
    """All sets of one prompts file at once: they share the tuned model's steps."""
    sigmas = SCHEDULES[schedule](wanted.num_steps, wanted.shift)
    parts = {name: partial_directory(folder / name.directory, keys[name]) for name in names}
    todo = [
        row
        for row, prompt in enumerate(prompts)
        if any(not (part / f"{prompt.id}.png").exists() for part in parts.values())
    ]
    progress = tqdm(
        total=len(prompts), initial=len(prompts) - len(todo), unit="image", desc=names[0].prompts
    )
    for rows in torch.tensor(todo, dtype=torch.long).split(wanted.batch_size):
        ids = [prompts[row].id for row in rows.tolist()]
        noise = torch.stack(
            [normal(policy.latent_shape, wanted.seed, "evaluation", i) for i in ids]
        )
        with computing(device, precision):
            finals = sample_hybrid(
                policy,
                base,
                cond.take(rows).to(device),
                sigmas,
                noise=noise.to(device),
                p_mix=[name.p_mix for name in names],
            )
        for name, latents in zip(names, finals, strict=True):
            for prompt_id, image in zip(ids, policy.decode(latents), strict=True):
                save_image(parts[name] / f"{prompt_id}.png", image)
        progress.update(len(rows))
    progress.close()
    for name, part in parts.items():
        finish_set(part, folder / name.directory, prompts, keys[name], wanted.seed)


def partial_directory(final: Path, key: str) -> Path:
    """Where a set grows until it is whole; a rerun with the same key goes on in it."""
    part = final.with_name(f"{final.name}.{key}.partial")
    part.mkdir(parents=True, exist_ok=True)
    return part


def finish_set(part: Path, final: Path, prompts: list[Prompt], key: str, seed: int) -> None:
    """Write the manifest and put the set in its place."""
    images = [
        {"prompt_id": p.id, "prompt": p.text, "seed": seed, "file": f"{p.id}.png"} for p in prompts
    ]
    write_text(part / "manifest.json", json.dumps({"key": key, "images": images}, indent=1) + "\n")
    if final.exists():
        shutil.rmtree(final)
    part.rename(final)


def describe(folder: Path, name: SetName) -> dict[str, Any]:
    """One entry of the index."""
    manifest = read_manifest(folder / name.directory)
    assert manifest is not None, name
    return {
        **asdict(name),
        "directory": name.directory,
        "num_images": len(manifest["images"]),
        "key": manifest["key"],
    }
