"""Sentences that every kind of table says of itself."""

from collections.abc import Sequence

import pandas as pd

from mixgrpo.config import BASE_CELL
from mixgrpo.report.document import Footnotes
from mixgrpo.report.table_spec import RowSpec, TableSpec
from mixgrpo.report.words import enumerated, seed_words


def ours(spec: TableSpec, scores: pd.DataFrame) -> str:
    """Where our values come from."""
    return (
        f"preset {spec.preset} ({spec.scale.removeprefix(f'{spec.preset}: ')}); "
        f"{seed_words(spec.seeds)}; {scores.prompt_id.nunique()} images a cell and seed, prompts of "
        f"{spec.dataset} {spec.split}, p_mix = {spec.p_mix:g} (the base has none)"
    )


def facts(spec: TableSpec, scores: pd.DataFrame, *, published: bool) -> tuple[tuple[str, str], ...]:
    """What `ours` and `paper` are."""
    several = len(spec.seeds) > 1
    spread = "training seeds (of the base, which no seed trained: over prompts)"
    error = f"mean +- standard error over {spread if several else 'prompts'}"
    sentences = [("ours", f"{ours(spec, scores)}; {error}.")]
    if published:
        sentences.append(("paper", _paper(spec)))
    return tuple(sentences)


def _paper(spec: TableSpec) -> str:
    printed = "as printed in the paper, with its own models, rewards, prompts and machines"
    stand_ins = [column for column in spec.score_columns if column.name != column.role]
    if not stand_ins:
        return f"{printed}."
    pairs = enumerated([f"{column.name} for {column.header}" for column in stand_ins])
    return (
        f"{printed}. Rewards here stand in for the paper's, on scales of their own: {pairs}. "
        "Compare orders and ratios, never values."
    )


def training_legend(spec: TableSpec) -> list[str]:
    """Which rows trained on what, and which columns no row trained on."""
    by_rewards: dict[tuple[str, ...], list[str]] = {}
    for row in spec.rows:
        if row.trained:
            in_order = tuple(sorted(row.trained, key=spec.rewards.index))
            by_rewards.setdefault(in_order, []).append(row.label)
    sentences = [
        f"Trained on {enumerated(rewards)}"
        + ("." if len(by_rewards) == 1 else f": {', '.join(labels)}.")
        for rewards, labels in by_rewards.items()
    ]
    trained = {name for rewards in by_rewards for name in rewards}
    held_out = [column.name for column in spec.score_columns if column.name not in trained]
    if by_rewards and held_out:
        sentences.append(f"Held out, trained on by no row: {enumerated(held_out)}.")
    return [" ".join(sentences)] if sentences else []


def missing(
    spec: TableSpec, row: RowSpec, what: str, seeds: Sequence[int], footnotes: Footnotes
) -> tuple[int, ...]:
    """A footnote when `what` is there for some `seeds` only, or for none."""
    absent = [seed for seed in spec.seeds if seed not in seeds]
    if not absent or (row.cell == BASE_CELL and seeds):
        return ()
    p_mix = 0.0 if row.cell == BASE_CELL else spec.p_mix
    where = f"{spec.dataset} {spec.split} at p_mix = {p_mix:g}"
    if not seeds:
        text = f"{row.label}: no {what}, {where}."
    else:
        text = f"{row.label}: {what} of seed {enumerated(seeds)} only, {where}."
    return (footnotes.add(text),)
