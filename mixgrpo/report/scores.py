"""Scores on disk as one tidy DataFrame.

    scores/{cell}/seed{seed}/index.json    {"scores": [{"dataset", "split", "p_mix", "reward", "file",
                                           "mean", "standard_error", "num_images"}, ...]}
    .../{dataset}_{split}/p{p_mix:.2f}/{reward}.csv    # {"reward": ..., ...}
                                                       prompt_id,seed,score

A score that no index lists is missing: it has no row here and is a blank cell of a table. A score that
an index lists and that is not whole on disk is an error.
"""

import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mixgrpo.errors import UserError
from mixgrpo.report.inputs import LENIENT, parse_json, read_json, read_text

TIDY = ["cell", "p_mix", "seed", "reward", "prompt_id", "noise_seed", "score"]
FILE_COLUMNS = ["prompt_id", "seed", "score"]


@dataclass(frozen=True, kw_only=True)
class ScoreEntry:
    """One csv that an index lists."""

    dataset: str
    split: str
    p_mix: float
    reward: str
    file: str
    num_images: int

    __pydantic_config__ = LENIENT


@dataclass(frozen=True, kw_only=True)
class ScoreIndex:
    """All csvs of one cell and seed."""

    scores: tuple[ScoreEntry, ...]

    __pydantic_config__ = LENIENT


@dataclass(frozen=True, kw_only=True)
class ScoreHeader:
    """First line of a csv, after `# `."""

    reward: str

    __pydantic_config__ = LENIENT


@dataclass(frozen=True)
class Source:
    """Pictures of one cell: those of each of its `seeds`, sampled at `p_mix`."""

    cell: str
    p_mix: float
    seeds: tuple[int, ...]


Images = Mapping[tuple[str, float, int, str], pd.Series]
"""(cell, p_mix, seed, reward) -> its scores (N,), index (prompt_id, noise_seed) in one order for all."""


def read_scores(
    folder: Path,
    sources: Sequence[Source],
    *,
    rewards: Collection[str],
    dataset: str,
    split: str,
) -> pd.DataFrame:
    """Scores with the columns `TIDY`, one row an image and reward; a source named twice is read once.

    `seed` is the training seed, `noise_seed` the image's. UserError unless all sources scored the same
    images.
    """
    parts = []
    for source in dict.fromkeys(sources):
        for seed in source.seeds:
            index = folder / source.cell / f"seed{seed}" / "index.json"
            for entry in _entries(index):
                found = (entry.dataset, entry.split) == (dataset, split)
                if found and math.isclose(entry.p_mix, source.p_mix) and entry.reward in rewards:
                    part = _read_csv(index.parent / entry.file, entry, index)
                    part = part.assign(cell=source.cell, p_mix=source.p_mix, seed=seed)
                    parts.append(part.assign(reward=entry.reward))
    scores = pd.concat(parts)[TIDY] if parts else pd.DataFrame(columns=TIDY)
    _same_images(scores, folder)
    return scores.reset_index(drop=True)


def per_image(scores: pd.DataFrame) -> Images:
    """What `read_scores` returned, a series for each source, seed and reward."""
    keys = ["cell", "p_mix", "seed", "reward"]
    indexed = scores.set_index(["prompt_id", "noise_seed"]).sort_index()
    groups = indexed.groupby(keys, sort=False).score
    order = list(scores[keys].drop_duplicates().itertuples(index=False))
    return {
        (str(c), float(p), int(s), str(r)): groups.get_group((c, p, s, r)) for c, p, s, r in order
    }


def _entries(index: Path) -> tuple[ScoreEntry, ...]:
    if not index.exists():
        return ()
    return read_json(index, ScoreIndex, remedy=f"`snakemake {index}` writes it").scores


def _read_csv(path: Path, entry: ScoreEntry, index: Path) -> pd.DataFrame:
    """One csv as (prompt_id, noise_seed, score), checked for being whole."""
    remedy = (
        f"delete {path.name} and {index}, then `snakemake {index}`: only this score is made again"
    )
    lines = read_text(path, remedy=f"To mend it, {remedy}").splitlines(keepends=True)
    if not lines or not lines[0].startswith("# "):
        raise UserError(f"{path}: wanted `# {{json}}` as its first line. To mend it, {remedy}.")
    header = parse_json(lines[0][2:], ScoreHeader, where=f"{path}, line 1", remedy=remedy)
    if header.reward != entry.reward:
        raise UserError(
            f"{path}: scores of {header.reward}, but {index} lists it as {entry.reward}. "
            f"To mend it, {remedy}."
        )
    if len(lines) - 2 != entry.num_images or not lines[-1].endswith("\n"):
        raise UserError(
            f"{path}: {max(len(lines) - 2, 0)} rows, the last one "
            f"{'whole' if lines[-1].endswith(chr(10)) else 'cut off'}, but {index} promises "
            f"{entry.num_images}: the file is truncated. To mend it, {remedy}."
        )
    return _checked("".join(lines[1:]), path, remedy)


def _checked(text: str, path: Path, remedy: str) -> pd.DataFrame:
    try:
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except pd.errors.ParserError as error:
        raise UserError(f"{path}: not a csv ({error}). To mend it, {remedy}.") from None
    if list(frame.columns) != FILE_COLUMNS:
        raise UserError(
            f"{path}: columns {', '.join(frame.columns)}; wanted {', '.join(FILE_COLUMNS)}. "
            f"To mend it, {remedy}."
        )
    twice = frame.prompt_id[frame.prompt_id.duplicated()]
    if len(twice):
        raise UserError(f"{path}: prompt id {twice.iloc[0]} appears twice. To mend it, {remedy}.")
    score = pd.to_numeric(frame.score, errors="coerce").astype(float)
    noise_seed = pd.to_numeric(frame.seed, errors="coerce")
    bad = frame[~(score.abs() < math.inf) | noise_seed.isna()]
    if len(bad):
        row = bad.iloc[0]
        raise UserError(
            f"{path}: prompt {row.prompt_id} has seed {row.seed!r} and score {row.score!r}; wanted a "
            f"whole number and a finite one. To mend it, {remedy}."
        )
    return pd.DataFrame(
        {"prompt_id": frame.prompt_id, "noise_seed": noise_seed.astype(int), "score": score}
    )


def _same_images(scores: pd.DataFrame, folder: Path) -> None:
    """Means are compared over the same prompts and noises, or not at all."""
    first: tuple[str, frozenset[tuple[str, int]]] | None = None
    keys = ["cell", "p_mix", "seed", "reward"]
    for (cell, p_mix, seed, reward), part in scores.groupby(keys, sort=False):
        where = f"{folder}/{cell}/seed{seed} ({reward}, p_mix = {p_mix:g})"
        images = frozenset(zip(part.prompt_id, part.noise_seed, strict=True))
        first = first or (where, images)
        if images != first[1]:
            raise UserError(
                f"{where} scores {len(images)} images, {len(images - first[1])} of which (by prompt and "
                f"noise seed) are not among the {len(first[1])} of {first[0]}: rows cannot be compared. "
                "Rerun snakemake with unfinished jobs included (`--rerun-incomplete`), so that every "
                "cell is generated and scored with the same prompts and evaluation settings."
            )
