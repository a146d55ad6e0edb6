"""Sentences that every kind of table says of itself."""

from collections.abc import Sequence

from mixgrpo.report.document import Footnotes, number
from mixgrpo.report.table_spec import EntrySpec, RowSpec, TableSpec
from mixgrpo.report.views import View, source
from mixgrpo.report.words import enumerated, seed_words


def origin(spec: TableSpec) -> str:
    """Preset, scale and seeds."""
    scale = spec.scale.removeprefix(f"{spec.preset}: ")
    return f"preset {spec.preset} ({scale}); {seed_words(spec.seeds)}"


def facts(
    spec: TableSpec, views: Sequence[View], *, published: bool
) -> tuple[tuple[str, str], ...]:
    """What `ours` and `paper` are."""
    if len(spec.seeds) > 1:
        spread = (
            "mean +- standard error over training seeds (in brackets: over prompts); of an untrained "
            "model, over prompts"
        )
    else:
        spread = "mean +- standard error over prompts; seeds were not varied"
    sentences = [("ours", f"{origin(spec)}; {_images(spec, views)}; {spread}.")]
    if published:
        sentences.append(("paper", _paper(spec)))
    return tuple(sentences)


def _images(spec: TableSpec, views: Sequence[View]) -> str:
    """How many, and of which prompts unless every view has its own."""
    count = f"{max(view.num_images() for view in views)} images a row and seed"
    if len(views) > 1:
        return count
    what = spec.views[0]
    return f"{count}, prompts of {what.dataset} {what.split}"


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


def named(view: View, what: str, *, p_mix: float) -> str:
    """Title of a grid: the view's own title before it, which pictures after it."""
    own_p_mix = any(entry.p_mix is not None for entry in view.of_row.values())
    where = [] if len(view.spec.views) == 1 else [f"{view.what.dataset} {view.what.split}"]
    where += [] if own_p_mix else [f"p_mix = {p_mix:g}"]
    text = f"{view.what.title}: {what[0].lower()}{what[1:]}" if view.what.title else what
    return f"{text} ({', '.join(where)})" if where else text


def base_facts(views: Sequence[View]) -> tuple[tuple[str, str], ...]:
    """What gains are measured from, and in which units."""
    sentences = []
    for view in views:
        for base in view.bases():
            parts = []
            for column in view.spec.score_columns:
                scores = view.base(base, column.name)
                if scores is not None:
                    mean, sd = scores.mean(), scores.std(ddof=1)
                    parts.append(
                        f"{column.name} {number(mean, column.digits)} ({number(sd, column.digits)})"
                    )
            where = f", {view.what.title}" if view.what.title else ""
            words = f"mean score (sd over prompts): {', '.join(parts)}."
            if parts:
                sentences.append((f"untrained model{where}", words))
    return tuple(sentences)


def training_legend(spec: TableSpec) -> list[str]:
    """Which rows trained on what, and which columns no row trained on."""
    by_rewards: dict[tuple[str, ...], list[str]] = {}
    for row in spec.rows:
        for trained in dict.fromkeys(entry.trained for entry in row.entries if entry.trained):
            in_order = tuple(sorted(trained, key=spec.rewards.index))
            by_rewards.setdefault(in_order, []).append(row.label)
    sentences = [
        f"Trained on {enumerated(rewards)}"
        + ("." if len(by_rewards) == 1 else f": {', '.join(labels)}.")
        for rewards, labels in by_rewards.items()
    ]
    trained_on = {name for rewards in by_rewards for name in rewards}
    held_out = [column.name for column in spec.score_columns if column.name not in trained_on]
    if by_rewards and held_out:
        sentences.append(f"Held out, trained on by no row: {enumerated(held_out)}.")
    return [" ".join(sentences)] if sentences else []


def missing(
    view: View,
    row: RowSpec,
    entry: EntrySpec,
    what: str,
    seeds: Sequence[int],
    p_mix: float,
    footnotes: Footnotes,
) -> tuple[int, ...]:
    """A footnote when `what` is there for some `seeds` only, or for none."""
    wanted = source(view.spec, entry, p_mix)
    absent = [seed for seed in wanted.seeds if seed not in seeds]
    if not absent:
        return ()
    where = f"{view.what.dataset} {view.what.split} at p_mix = {wanted.p_mix:g}"
    if not seeds:
        text = f"{row.label}: no {what}, {where}."
    else:
        text = f"{row.label}: {what} of seed {enumerated(seeds)} only, {where}."
    return (footnotes.add(text),)


def identity(view: View, row: RowSpec, entry: EntrySpec, p_mix: float) -> dict[str, object]:
    """The columns of the csv that say what its row is."""
    spec, what = view.spec, view.what
    seeds = {
        seed
        for (cell, share, seed, _) in view.images
        if (cell, share) == (entry.cell, source(spec, entry, p_mix).p_mix)
    }
    return {
        "view": what.title,
        "label": row.label,
        "cell": entry.cell,
        "trained": ";".join(entry.trained),
        "preset": spec.preset,
        "seeds": ";".join(map(str, sorted(seeds))),
        "dataset": what.dataset,
        "split": what.split,
        "p_mix": source(spec, entry, p_mix).p_mix,
        "num_images": view.num_images() if seeds else 0,
    }
