"""Which prompts a figure shows: a rule, so that nobody picks the nice ones."""

from pathlib import Path

import pandas as pd

from mixgrpo.errors import UserError

COLUMNS = ["id", "prompt", "style"]


def varied_prompts(prompts: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows, dealt evenly to the styles and grouped by them, in the file's order of styles.

    Greedy: style after style in turn takes its prompt that is least alike, in words, to those already
    taken; the earlier in the file of two that are equally so. Only texts are looked at, never pictures.
    """
    words = [frozenset(text.lower().split()) for text in prompts["prompt"]]
    styles = list(prompts["style"].unique())
    taken: list[int] = []
    for turn in range(count):
        style = styles[turn % len(styles)]
        free = [i for i in _rows_of(prompts, style) if i not in taken]
        if free:
            taken.append(min(free, key=lambda i: sum(_likeness(words[i], words[j]) for j in taken)))
    return prompts.iloc[
        sorted(taken, key=lambda i: styles.index(prompts["style"].iloc[i]))
    ].reset_index(drop=True)


def _rows_of(prompts: pd.DataFrame, style: str) -> list[int]:
    return [i for i, other in enumerate(prompts["style"]) if other == style]


def _likeness(words: frozenset[str], others: frozenset[str]) -> float:
    """Words in common over words in all (Jaccard).

    >>> _likeness(frozenset({"red", "ring"}), frozenset({"red", "square", "ring"}))
    0.6666666666666666
    """
    return len(words & others) / len(words | others)


def read_prompts(path: Path) -> pd.DataFrame:
    """Columns id, prompt, style of a prompts file."""
    remedy = f"Delete it and run `snakemake {path}`"
    try:
        prompts = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. `snakemake {path}` writes it.") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a tab-separated file ({error}). {remedy}.") from None
    if list(prompts.columns) != COLUMNS or prompts.empty:
        raise UserError(
            f"{path}: {len(prompts)} rows of {', '.join(prompts.columns)}; wanted at least one of "
            f"{', '.join(COLUMNS)}. {remedy}."
        )
    return prompts
