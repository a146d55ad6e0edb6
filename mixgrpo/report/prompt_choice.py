"""Which prompts a figure shows: a rule, so that nobody picks the nice ones."""

from pathlib import Path

import pandas as pd

from mixgrpo.errors import UserError

COLUMNS = ["id", "prompt", "style"]


def first_of_each_style(prompts: pd.DataFrame, count: int) -> pd.DataFrame:
    """`count` rows, dealt evenly: the first of each style, in the file's order, grouped by style.

    Styles in order of appearance; when `count` does not divide, the first styles have one more.
    """
    styles = list(prompts["style"].unique())
    parts = []
    for i, style in enumerate(styles):
        share = count // len(styles) + (i < count % len(styles))
        parts.append(prompts[prompts["style"] == style].head(share))
    return pd.concat(parts).reset_index(drop=True)


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
