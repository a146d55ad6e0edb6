"""Score pictures: the image sets of a cell by every reward of the preset, or any folder by the rewards asked for.

    python -m mixgrpo score --images INDEX --rewards FILE --index FILE                        (the workflow)
    python -m mixgrpo score --images FOLDER --prompts FILE --reward hps_v2_1,pick_score       (on its own)

The workflow gets one csv per set and reward, and an index with means; a folder gets one csv with a column per
reward. Either names each reward's version, checkpoint, checksum and scale, keeps what is current, and goes on
where an interrupted job stopped.
"""

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mixgrpo.devices import own_device
from mixgrpo.errors import UserError
from mixgrpo.files import fingerprint
from mixgrpo.folders import Picture, key_of_pictures, read_folder, shards_of
from mixgrpo.imagesets import key_of, load_images, read_index, read_manifest, write_index
from mixgrpo.provenance import digest
from mixgrpo.rewards import CheckedReward, Reward, load_reward, placement
from mixgrpo.rewards._command import Asked, rewards_asked
from mixgrpo.rewards._placement import is_url
from mixgrpo.scorefiles import (
    SHARD,
    mean_and_error,
    partial,
    read_table,
    score_in_shards,
    write_table,
)


def run(
    *,
    images: Path,
    rewards: Path | None = None,
    index: Path | None = None,
    prompts: Path | None = None,
    reward: str | None = None,
    output: Path | None = None,
    path: Sequence[str] = (),
    option: Sequence[str] = (),
) -> None:
    """Score the sets of the `images` index by the `rewards` file, or the folder `images` with its `prompts`."""
    if rewards and index and not (prompts or reward or output or path or option):
        score_sets(images, read_rewards(rewards), index)
    elif prompts and reward and not (rewards or index):
        asked = rewards_asked(reward, path, option)
        score_folder(images, prompts, asked, output or scores_beside(images))
    else:
        raise UserError(
            "wanted --images INDEX --rewards FILE --index FILE, as the workflow has it; or --images FOLDER "
            "--prompts FILE --reward NAMES, and if need be --output, --path and --option, for a folder of pictures."
        )


class Scorer:
    """One reward, loaded when the first score is missing."""

    def __init__(self, name: str, asked: Asked):
        self.name, self.asked = name, asked
        self.place = placement().get(name)
        self.loaded: CheckedReward | None = None

    @property
    def reward(self) -> CheckedReward:
        """The reward itself."""
        if self.loaded is None:
            device = own_device()
            path, options = self.asked.path, self.asked.options
            self.loaded = load_reward(self.name, path, device, options, self.place)
        return self.loaded

    def depends_on(self) -> dict[str, Any]:
        """What its scores depend on, beside the pictures. Of a server, what it says of itself."""
        served = is_url(self.place)
        path = None if self.asked.path is None else Path(self.asked.path)
        if path is not None and not served and not path.exists():
            raise UserError(
                f"reward {self.name}: there is nothing at {path}, wanted its weights. For preset tiny the "
                "`pretrain` stage makes them."
            )
        weights = self.reward.facts if served else path and fingerprint(path)
        return {
            "reward": self.name,
            "options": dict(self.asked.options),
            "weights": weights,
            "code": digest("mixgrpo.stages.score", f"mixgrpo.rewards.{self.name}"),
        }


# Image sets of the workflow


def score_sets(images: Path, rewards: Mapping[str, Asked], index: Path) -> None:
    """Score every set of the `images` index; keep what is current; write the index of scores."""
    sets = read_index(images, "sets")
    entries = []
    total = len(rewards) * sum(image_set["num_images"] for image_set in sets)
    with tqdm(total=total, unit="image", mininterval=2) as progress:
        for name, asked in rewards.items():
            progress.set_description(name)
            scorer = Scorer(name, asked)
            depends_on = scorer.depends_on()
            for image_set in sets:
                key = key_of({**depends_on, "images": image_set["key"]})
                file = index.parent / image_set["directory"] / f"{name}.csv"
                scores = read_scores(file, key, num_images=image_set["num_images"])
                if scores is None:
                    folder = images.parent / image_set["directory"]
                    scores = score_set(scorer.reward, folder, partial(file), key, progress)
                    facts = {**scorer.reward.facts, **depends_on, "images": image_set["key"]}
                    write_scores(file, scores, {**facts, "key": key})
                    partial(file).unlink(missing_ok=True)
                else:
                    progress.update(image_set["num_images"])
                entries.append(describe(image_set, name, file.relative_to(index.parent), scores))
    write_index(index, "scores", entries)


def read_rewards(path: Path) -> dict[str, Asked]:
    """Weights and options of each reward by name."""
    try:
        return {
            name: Asked(reward["path"], dict(reward.get("options", {})))
            for name, reward in json.loads(path.read_text()).items()
        }
    except (
        OSError,
        json.JSONDecodeError,
        TypeError,
        ValueError,
        KeyError,
        AttributeError,
    ) as error:
        raise UserError(
            f'{path}: not a rewards file ({error!r}), wanted {{name: {{"path": ...}}}}.'
        ) from None


def score_set(
    reward: Reward, directory: Path, kept: Path, key: str, progress: Any
) -> list[tuple[str, int, float]]:
    """(prompt id, seed, raw score) of every picture in the set. kept: file of the scores made so far."""
    manifest = read_manifest(directory)
    if manifest is None:
        raise UserError(
            f"{directory} holds no finished image set. Rerun the generate rule of this cell."
        )
    images = manifest["images"]

    def score(shard: range) -> list[float]:
        batch = [images[i] for i in shard]
        pixels = load_images([directory / image["file"] for image in batch])
        return reward.score(pixels, [image["prompt"] for image in batch]).tolist()

    starts = range(0, len(images), SHARD)
    shards = [range(start, min(start + SHARD, len(images))) for start in starts]
    scores = score_in_shards(kept, key, shards, score, done=progress.update)
    return [(i["prompt_id"], i["seed"], s) for i, s in zip(images, scores, strict=True)]


def write_scores(
    path: Path, scores: Sequence[tuple[str, int, float]], facts: dict[str, Any]
) -> None:
    """One csv of the workflow."""
    rows = ((prompt_id, seed, repr(score)) for prompt_id, seed, score in scores)
    write_table(path, facts, ["prompt_id", "seed", "score"], rows)


def read_scores(path: Path, key: str, *, num_images: int) -> list[tuple[str, int, float]] | None:
    """Scores that are there already under the same key, one per image, else None."""
    table = read_table(path)
    if table is None or table[0].get("key") != key or len(table[1]) != num_images:
        return None
    try:
        return [(row["prompt_id"], int(row["seed"]), float(row["score"])) for row in table[1]]
    except (ValueError, KeyError):
        return None


def describe(
    image_set: dict[str, Any], reward: str, file: Path, scores: Sequence[tuple[str, int, float]]
) -> dict[str, Any]:
    """One entry of the index: mean and standard error over prompts."""
    mean, error = mean_and_error([score for _, _, score in scores])
    return {
        **{key: image_set[key] for key in ("dataset", "split", "p_mix")},
        "reward": reward,
        "file": str(file),
        "mean": mean,
        "standard_error": error,
        "num_images": len(scores),
    }


# Any folder


def scores_beside(folder: Path) -> Path:
    """Where the scores of a folder go unless --output says otherwise.

    >>> scores_beside(Path("pictures")).name
    'pictures.scores.csv'
    """
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.scores.csv")


def score_folder(images: Path, prompts: Path, asked: Mapping[str, Asked], output: Path) -> None:
    """Score every picture; write a csv with a row for each, and print means. Columns that are current are kept."""
    pictures = read_folder(images, prompts)
    shards = list(shards_of(pictures, SHARD))
    pictures_key = key_of_pictures(pictures)
    facts, columns = read_columns(output, pictures_key, pictures)
    with tqdm(total=len(asked) * len(pictures), unit="image", mininterval=1) as progress:
        for name, one in asked.items():
            progress.set_description(name)
            scorer = Scorer(name, one)
            depends_on = scorer.depends_on()
            key = key_of({**depends_on, "images": pictures_key})
            if name in columns and facts[name].get("key") == key:
                progress.update(len(pictures))
                continue
            kept = partial(output.with_name(f"{output.name}.{name}"))
            score = functools.partial(score_pictures, scorer, pictures)
            columns[name] = score_in_shards(kept, key, shards, score, done=progress.update)
            facts[name] = {**scorer.reward.facts, **depends_on, "key": key}
            write_columns(output, pictures_key, pictures, facts, columns)
            kept.unlink(missing_ok=True)
    for name in asked:
        sys.stdout.write(summary(name, columns[name], facts[name]))
    sys.stdout.write(f"scores of every picture: {output}\n")


def score_pictures(scorer: Scorer, pictures: Sequence[Picture], shard: range) -> list[float]:
    """Raw scores of one shard; pictures of one size are scored together."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for i in shard:
        by_size.setdefault((pictures[i].height, pictures[i].width), []).append(i)
    scores: dict[int, float] = {}
    for members in by_size.values():
        pixels = torch.stack([pictures[i].pixels() for i in members])
        found = scorer.reward.score(pixels, [pictures[i].prompt for i in members]).tolist()
        scores |= zip(members, found, strict=True)
    return [scores[i] for i in shard]


def read_columns(
    path: Path, pictures_key: str, pictures: Sequence[Picture]
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Facts and scores of every reward in the file, when it is of these pictures; else nothing."""
    table = read_table(path)
    if table is None or table[0].get("images") != pictures_key or len(table[1]) != len(pictures):
        return {}, {}
    facts, rows = table
    try:
        return facts["rewards"], {n: [float(row[n]) for row in rows] for n in facts["rewards"]}
    except (ValueError, KeyError):
        return {}, {}


def write_columns(
    path: Path,
    pictures_key: str,
    pictures: Sequence[Picture],
    facts: Mapping[str, Any],
    columns: Mapping[str, Sequence[float]],
) -> None:
    """A row for each picture, a column for each reward."""
    scores = zip(*columns.values(), strict=True)
    rows = (
        (picture.file, picture.prompt, *map(repr, row))
        for picture, row in zip(pictures, scores, strict=True)
    )
    head = {"images": pictures_key, "rewards": dict(facts)}
    write_table(path, head, ["file", "prompt", *columns], rows)


def summary(name: str, scores: Sequence[float], facts: Mapping[str, str]) -> str:
    """One line for people."""
    mean, error = mean_and_error(scores)
    spread = "" if error is None else f" +- {error:.4f}"
    said = "; ".join(facts[key] for key in ("version", "scale") if key in facts)
    return (
        f"{name}: mean {mean:.4f}{spread} of {len(scores)} pictures{f' ({said})' if said else ''}\n"
    )
