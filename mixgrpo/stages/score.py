"""Score image sets by every reward of the preset: one csv per set and reward, and an index with means."""

import csv
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mixgrpo.errors import UserError
from mixgrpo.files import atomic, fingerprint
from mixgrpo.imagesets import key_of, load_images, read_index, read_manifest, write_index
from mixgrpo.provenance import digest
from mixgrpo.rewards import Reward, load_reward

BATCH_SIZE = 64


def run(*, images: Path, rewards: Path, index: Path) -> None:
    """Score every set of the `images` index by every reward of the `rewards` file; keep what is current."""
    sets = read_index(images, "sets")
    paths = read_rewards(rewards)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    entries = []
    progress = tqdm(total=len(paths) * len(sets), unit="file")
    for name, path in paths.items():
        facts = {
            "reward": name,
            "weights": fingerprint(Path(path)) if path else None,
            "code": digest("mixgrpo.stages.score", f"mixgrpo.rewards.{name}"),
        }
        reward = None
        for image_set in sets:
            key = key_of({**facts, "images": image_set["key"]})
            file = index.parent / image_set["directory"] / f"{name}.csv"
            scores = read_scores(file, key, num_images=image_set["num_images"])
            if scores is None:
                reward = reward or load_reward(name, path, device)
                scores = score_set(reward, images.parent / image_set["directory"])
                write_scores(file, scores, {**facts, "key": key, "images": image_set["key"]})
            entries.append(describe(image_set, name, file.relative_to(index.parent), scores))
            progress.update()
    progress.close()
    write_index(index, "scores", entries)


def read_rewards(path: Path) -> dict[str, str | None]:
    """Directory of each reward by name, None for a reward without weights."""
    try:
        return {name: reward["path"] for name, reward in json.loads(path.read_text()).items()}
    except (OSError, json.JSONDecodeError, TypeError, KeyError) as error:
        raise UserError(
            f'{path}: not a rewards file ({error!r}), wanted {{name: {{"path": ...}}}}.'
        ) from None


def score_set(reward: Reward, directory: Path) -> list[tuple[str, int, float]]:
    """(prompt id, seed, raw score) of every picture in the set."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise UserError(
            f"{directory} holds no finished image set. Rerun the generate rule of this cell."
        )
    rows = []
    for start in range(0, len(manifest["images"]), BATCH_SIZE):
        batch = manifest["images"][start : start + BATCH_SIZE]
        pixels = load_images([directory / image["file"] for image in batch])
        scores = reward.score(pixels, [image["prompt"] for image in batch]).tolist()
        rows += [(i["prompt_id"], i["seed"], s) for i, s in zip(batch, scores, strict=True)]
    return rows


def write_scores(
    path: Path, scores: Sequence[tuple[str, int, float]], facts: dict[str, Any]
) -> None:
    """A csv whose first line is a comment with what it depends on."""
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        file.write(f"# {json.dumps(facts, sort_keys=True)}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["prompt_id", "seed", "score"])
        writer.writerows((prompt_id, seed, repr(score)) for prompt_id, seed, score in scores)


def read_scores(path: Path, key: str, *, num_images: int) -> list[tuple[str, int, float]] | None:
    """Scores that are there already under the same key, one per image, else None."""
    try:
        header, _, *lines = path.read_text().splitlines()
        if json.loads(header.removeprefix("# "))["key"] != key:
            return None
        rows = list(csv.reader(lines))
        scores = [(prompt_id, int(seed), float(score)) for prompt_id, seed, score in rows]
        return scores if len(scores) == num_images else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def describe(
    image_set: dict[str, Any], reward: str, file: Path, scores: Sequence[tuple[str, int, float]]
) -> dict[str, Any]:
    """One entry of the index: mean and standard error over prompts."""
    values = [score for _, _, score in scores]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        **{key: image_set[key] for key in ("dataset", "split", "p_mix")},
        "reward": reward,
        "file": str(file),
        "mean": statistics.fmean(values),
        "standard_error": error,
        "num_images": len(values),
    }
