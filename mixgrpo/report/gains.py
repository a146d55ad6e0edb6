"""Kind `gains`: what training gained, paired with the base, in units of the base's own spread.

    d(k, i)  = (score(k, i) - base(k, i)) / sd_i base(k, i)    reward k, image i (same prompt and noise)
    gain(k)  = mean_i d(k, i),   standard error sd_i d(k, i) / sqrt(N)
    trained  : the same of d(i) = mean over the cell's trained rewards of d(k, i)

The csv has one row per row of the table: cell, label, trained, group, value, best_of_group, then for
`{name}` and for `trained`: `gain_*`, `se_seeds_*`, `se_prompts_*`, and per seed `gain_*_seed{s}`,
`se_*_seed{s}`; `difference` (MixGRPO minus the row, of `trained`) with its errors; `mean_{name}` the raw
mean. A sweep has `group` and `value` and marks the best of each group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from mixgrpo.config import BASE_CELL
from mixgrpo.errors import UserError
from mixgrpo.report.document import Document, Entry, Footnotes, Grid, Heading, number, with_error
from mixgrpo.report.inputs import BASE_SEED
from mixgrpo.report.remarks import missing, ours, training_legend
from mixgrpo.report.scores import per_image
from mixgrpo.report.statistics import Summary, summarise
from mixgrpo.report.table_spec import RowSpec, TableSpec

REFERENCE_CELL = "mixgrpo"
"""The row that every other is compared with, if the table has it."""
TRAINED = "trained"
"""The mean over the rewards that a cell trained on."""
DIGITS = 3

Gains = Mapping[tuple[str, int, str], pd.Series]
"""(cell, seed, reward) -> d(k, i), index (prompt_id, noise_seed)."""


@dataclass(frozen=True)
class RowGains:
    """One row: its gains by reward and `TRAINED`, and how much MixGRPO gained more."""

    row: RowSpec
    gains: dict[str, Summary]
    difference: Summary | None


def build(spec: TableSpec, scores: pd.DataFrame) -> Document:
    """`scores`: what `read_scores` returns, the base among its cells."""
    rows = [row for row in spec.rows if row.cell != BASE_CELL]
    untold = [row.cell for row in rows if not row.trained]
    if untold:
        raise UserError(
            f"{spec.table}: rows {', '.join(untold)} say nothing of the rewards they trained on. "
            "Set `trained` of every row but the base."
        )
    if BASE_CELL not in scores.cell.to_numpy():
        raise UserError(
            f"{spec.table}: the base has no score on {spec.dataset} {spec.split}, and gains are measured "
            "from it. Have the workflow score it: a gains table asks for the cell `base` too."
        )
    images = per_image(scores)
    gained = standardised_gains(images)
    found = [_row_gains(spec, row, rows, gained) for row in rows]
    footnotes = Footnotes()
    best = best_of_group(found)
    return Document(
        name=spec.table,
        title=spec.title,
        caption=spec.caption,
        facts=(("ours", f"{ours(spec, scores)}."), ("base", _base_words(spec, images))),
        grids=(_trained_grid(spec, found, best, footnotes), _reward_grid(spec, found, footnotes)),
        legend=tuple(_legend(spec, found)),
        footnotes=tuple(footnotes.texts),
        data=_data(spec, scores, found, best),
    )


def standardised_gains(images: Mapping[tuple[str, int, str], pd.Series]) -> Gains:
    """d(k, i) of every cell and seed but the base; `images` as `per_image` returns them.

    UserError if the base has the same score everywhere: its spread is the unit.
    """
    base = {reward: series for (cell, _, reward), series in images.items() if cell == BASE_CELL}
    for reward, series in base.items():
        if not series.std(ddof=1) > 0:
            raise UserError(
                f"{reward}: the base's {len(series)} scores have no spread, and gains are measured in "
                "units of it. Score more than one prompt, or leave this reward out of the table."
            )
    return {
        (cell, seed, reward): (series - base[reward]) / base[reward].std(ddof=1)
        for (cell, seed, reward), series in images.items()
        if cell != BASE_CELL and reward in base
    }


def trained_gain(gained: Gains, cell: str, seed: int, rewards: tuple[str, ...]) -> pd.Series | None:
    """Mean of d(k, i) over `rewards`, per image; None when one of them is missing."""
    parts = [gained.get((cell, seed, reward)) for reward in rewards]
    if any(part is None for part in parts):
        return None
    return pd.concat([part for part in parts if part is not None], axis=1).mean(axis=1)


def _row_gains(spec: TableSpec, row: RowSpec, rows: list[RowSpec], gained: Gains) -> RowGains:
    gains: dict[str, Summary] = {}
    for column in spec.score_columns:
        found = {seed: gained.get((row.cell, seed, column.name)) for seed in spec.seeds}
        gains |= _summary(column.name, found)
    trained = {s: trained_gain(gained, row.cell, s, row.trained) for s in spec.seeds}
    gains |= _summary(TRAINED, trained)
    return RowGains(row, gains, _difference(spec, row, rows, gained))


def _summary(name: str, found: Mapping[int, pd.Series | None]) -> dict[str, Summary]:
    present = {seed: series for seed, series in found.items() if series is not None}
    return {name: summarise(present)} if present else {}


def _difference(
    spec: TableSpec, row: RowSpec, rows: list[RowSpec], gained: Gains
) -> Summary | None:
    """Of the rewards that the reference trained on, same prompt, noise and training seed."""
    reference = next((other for other in rows if other.cell == REFERENCE_CELL), None)
    if reference is None or row is reference:
        return None
    differences: dict[int, pd.Series | None] = {}
    for seed in spec.seeds:
        ours_ = trained_gain(gained, reference.cell, seed, reference.trained)
        theirs = trained_gain(gained, row.cell, seed, reference.trained)
        differences[seed] = None if ours_ is None or theirs is None else ours_ - theirs
    return _summary("", differences).get("")


def best_of_group(found: list[RowGains]) -> set[str]:
    """Cells of a sweep with the largest trained gain of their group, over the seeds."""
    best: dict[str, RowGains] = {}
    for item in found:
        if item.row.group is not None and TRAINED in item.gains:
            leader = best.setdefault(item.row.group, item)
            if item.gains[TRAINED].mean > leader.gains[TRAINED].mean:
                best[item.row.group] = item
    return {item.row.cell for item in best.values()}


def _trained_grid(
    spec: TableSpec, found: list[RowGains], best: set[str], footnotes: Footnotes
) -> Grid:
    """Gain over the trained rewards: per seed, over seeds, and against the reference."""
    reference = [item.row.label for item in found if item.row.cell == REFERENCE_CELL]
    headings = [Heading("method")]
    headings += [Heading(f"seed {seed}") for seed in spec.seeds]
    headings += [Heading("over seeds")] * (len(spec.seeds) > 1)
    headings += [Heading(f"{label} minus it") for label in reference]
    rows = []
    for item in found:
        summary = item.gains.get(TRAINED)
        seeds = list(summary.per_seed) if summary else []
        notes = missing(spec, item.row, "gain in what it trained on", seeds, footnotes)
        entries = [Entry(item.row.label, footnotes=notes)]
        entries += [Entry(_of_seed(summary, seed)) for seed in spec.seeds]
        entries += [Entry(_over_seeds(summary))] * (len(spec.seeds) > 1)
        if item.row.cell in best:
            entries = [replace(entry, mark="best") for entry in entries]
        entries += [Entry(_difference_words(item.difference))] * len(reference)
        rows.append(tuple(entries))
    title = "Gain over the base, mean of the rewards trained on"
    return Grid(title=title, headings=tuple(headings), rows=tuple(rows))


def _of_seed(summary: Summary | None, seed: int) -> str:
    """`gain +- standard error (gain / standard error)`."""
    if summary is None or seed not in summary.per_seed:
        return ""
    estimate = summary.per_seed[seed]
    text = with_error(estimate.mean, estimate.error, DIGITS, signed=True)
    return f"{text} ({estimate.mean / estimate.error:.1f})" if estimate.error else text


def _over_seeds(summary: Summary | None) -> str:
    return with_error(summary.mean, summary.error, DIGITS, signed=True) if summary else ""


def _difference_words(difference: Summary | None) -> str:
    """`difference (standard error over prompts; over seeds)`."""
    if difference is None:
        return ""
    errors = [number(e, DIGITS) for e in (difference.prompt_error, difference.seed_error)]
    known = "; ".join(filter(None, errors))
    return f"{number(difference.mean, DIGITS, signed=True)}" + (f" ({known})" if known else "")


def _reward_grid(spec: TableSpec, found: list[RowGains], footnotes: Footnotes) -> Grid:
    """Gain in each column's reward, over the seeds."""
    headings = [Heading("method")]
    columns = [[Entry(item.row.label) for item in found]]
    for name in [column.name for column in spec.score_columns]:
        headings.append(Heading(name, _role_in_training(name, found)))
        entries = []
        for item in found:
            summary = item.gains.get(name)
            seeds = list(summary.per_seed) if summary else []
            notes = missing(spec, item.row, f"gain in {name}", seeds, footnotes)
            entries.append(Entry(_over_seeds(summary), footnotes=notes))
        columns.append(entries)
    rows = tuple(zip(*columns, strict=True))
    return Grid(title="Gain over the base, each reward", headings=tuple(headings), rows=rows)


def _role_in_training(name: str, found: list[RowGains]) -> str:
    trained = [name in item.row.trained for item in found]
    return "trained" if all(trained) else "" if any(trained) else "held out"


def _base_words(spec: TableSpec, images: Mapping[tuple[str, int, str], pd.Series]) -> str:
    digits = {column.name: column.digits for column in spec.columns}
    parts = [
        f"{reward} {series.mean():.{digits.get(reward, DIGITS)}f}"
        f" ({series.std(ddof=1):.{digits.get(reward, DIGITS)}f})"
        for reward in spec.rewards
        for series in [images.get((BASE_CELL, BASE_SEED, reward))]
        if series is not None
    ]
    return f"mean score (sd over prompts): {', '.join(parts)}. The sd is the unit of every gain."


def _legend(spec: TableSpec, found: list[RowGains]) -> list[str]:
    legend = [
        "Gain: mean over prompts of the score minus the base's on the same prompt and noise, in units "
        "of the base's sd. Per seed: gain +- standard error over prompts (their ratio).",
    ]
    if len(spec.seeds) > 1:
        legend.append("Over seeds: mean of the seeds' gains +- standard error over seeds.")
    differences = [item.difference for item in found if item.difference is not None]
    if differences:
        errors = "over prompts; over seeds" if len(spec.seeds) > 1 else "over prompts"
        legend.append(
            "Minus it: paired difference on the same prompt, noise and training seed, of the rewards "
            f"that the first of the two trained on (standard error {errors})."
        )
    if any(item.row.group is not None for item in found):
        legend.append("Bold: the value with the largest gain of its method.")
    return [*legend, *training_legend(spec)]


def _data(
    spec: TableSpec, scores: pd.DataFrame, found: list[RowGains], best: set[str]
) -> pd.DataFrame:
    raw = scores.groupby(["cell", "reward"]).score.mean()
    records = []
    for item in found:
        record: dict[str, object] = {
            "cell": item.row.cell,
            "label": item.row.label,
            "trained": ";".join(item.row.trained),
            "group": item.row.group,
            "value": item.row.value,
            "best_of_group": item.row.cell in best,
        }
        for name in [TRAINED, *(column.name for column in spec.score_columns)]:
            record |= _numbers(name, item.gains.get(name), spec.seeds)
            if name != TRAINED:
                record[f"mean_{name}"] = raw.get((item.row.cell, name))
        difference = item.difference
        record["difference"] = difference.mean if difference else None
        record["se_prompts_difference"] = difference.prompt_error if difference else None
        record["se_seeds_difference"] = difference.seed_error if difference else None
        records.append(record)
    return pd.DataFrame(records)


def _numbers(name: str, summary: Summary | None, seeds: Sequence[int]) -> dict[str, float | None]:
    numbers = {
        f"gain_{name}": summary.mean if summary else None,
        f"se_prompts_{name}": summary.prompt_error if summary else None,
        f"se_seeds_{name}": summary.seed_error if summary else None,
    }
    for seed in seeds:
        estimate = summary.per_seed.get(seed) if summary else None
        numbers[f"gain_{name}_seed{seed}"] = estimate.mean if estimate else None
        numbers[f"se_{name}_seed{seed}"] = estimate.error if estimate else None
    return numbers
