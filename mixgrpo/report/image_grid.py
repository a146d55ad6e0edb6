"""Qualitative figures: the same prompts and the same noise, a row for each method, reward set or p_mix."""

import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from mixgrpo.errors import UserError
from mixgrpo.report.figure_spec import FigureCell, FigureSpec
from mixgrpo.report.pictures import Picture, read_pictures
from mixgrpo.report.prompt_choice import read_prompts, varied_prompts
from mixgrpo.report.style import (
    INK,
    MARGIN,
    RULE,
    colours,
    footer,
    inches_axes,
    inches_text,
    new_figure,
    title,
)

PICTURE = 1.0
"""Side of a picture, inches; every other length is in inches too."""
PIXELS = 256
GAP = 0.05
STYLE_GAP = 0.16
LABELS = 1.15
LABEL_CHARACTERS = 12
HEAD = 1.0
CAPTIONS = 0.58
FOOT = 0.22
LINE = 0.125
CAPTION_CHARACTERS = 18
CAPTION_LINES = 4


def draw(spec: FigureSpec) -> Figure:
    """`spec.num_prompts` columns, by `varied_prompts`; rows are the cells in order."""
    spec.needed("dataset", "split", "num_prompts", "prompts")
    prompts = varied_prompts(read_prompts(Path(str(spec.prompts))), spec.num_prompts or 0)
    grid = [_row(spec, cell, prompts) for cell in spec.cells]
    _same_noise(spec, prompts, grid)
    lefts = _lefts(prompts)
    height = HEAD + len(grid) * (PICTURE + GAP) + CAPTIONS + FOOT
    figure = new_figure(lefts[-1] + PICTURE + MARGIN, height)
    _head(figure, spec, prompts, lefts)
    shades = colours([cell.cell for cell in spec.cells])
    for i, (cell, pictures) in enumerate(zip(spec.cells, grid, strict=True)):
        top = HEAD + i * (PICTURE + GAP)
        _label(figure, cell.label, shades[cell.cell], top + PICTURE / 2)
        for left, picture in zip(lefts, pictures, strict=True):
            axes = inches_axes(figure, left, top, PICTURE, PICTURE)
            axes.imshow(picture.pixels, interpolation="none")
            axes.set_axis_off()
    for left, prompt in zip(lefts, prompts["prompt"], strict=True):
        _caption(figure, prompt, left + PICTURE / 2, height - CAPTIONS - FOOT + LINE)
    footer(figure, f"{origin(spec)}; {_which(spec)}")
    return figure


def origin(spec: FigureSpec) -> str:
    """Pictures are of the first seed of each trained cell."""
    return spec.origin(sorted({cell.seeds[0] for cell in spec.cells if cell.trained}) or [0])


def _which(spec: FigureSpec) -> str:
    """Which pictures, and which prompts of all."""
    shares = {cell.p_mix for cell in spec.cells if cell.trained}
    p_mix = f", p_mix = {shares.pop():g}" if len(shares) == 1 else ""
    return f"{spec.dataset} {spec.split}{p_mix}; of each style the prompts least alike in words"


def _label(figure: Figure, text: str, color: str, middle: float) -> None:
    lines = textwrap.fill(text, LABEL_CHARACTERS, break_on_hyphens=False, break_long_words=False)
    inches_text(figure, MARGIN, middle, lines, color=color, va="center", weight="bold", size=8.5)


def _caption(figure: Figure, prompt: str, middle: float, top: float) -> None:
    """Line by line, so that the lines of all captions are level; a long prompt ends in dots."""
    lines = textwrap.wrap(
        prompt,
        CAPTION_CHARACTERS,
        max_lines=CAPTION_LINES,
        placeholder=" ...",
        break_long_words=True,
    )
    for i, line in enumerate(lines):
        inches_text(figure, middle, top + i * LINE, line, va="baseline", ha="center", size=6.5)


def _row(spec: FigureSpec, cell: FigureCell, prompts: pd.DataFrame) -> list[Picture]:
    if cell.images is None or cell.p_mix is None:
        raise UserError(
            f"figure {spec.name}: cell {cell.cell} has no images or no p_mix in its spec. A figure of "
            "pictures reads images: say so in config/figures.yaml."
        )
    return read_pictures(
        Path(cell.images),
        list(prompts["id"]),
        dataset=str(spec.dataset),
        split=str(spec.split),
        p_mix=cell.p_mix,
        size=PIXELS,
    )


def _same_noise(spec: FigureSpec, prompts: pd.DataFrame, grid: list[list[Picture]]) -> None:
    """The figure claims it, so it is checked."""
    for column, prompt_id in enumerate(prompts["id"]):
        seeds = {
            cell.label: row[column].noise_seed for cell, row in zip(spec.cells, grid, strict=True)
        }
        if len(set(seeds.values())) > 1:
            raise UserError(
                f"figure {spec.name}: pictures of {prompt_id} start from different noise (seeds {seeds}). "
                "Delete the images/ folders of these cells and rerun snakemake: one evaluation seed "
                "serves all."
            )


def _lefts(prompts: pd.DataFrame) -> list[float]:
    """Left edges of the columns; a wider gap where the style changes."""
    lefts, left = [], MARGIN + LABELS
    for i, style in enumerate(prompts["style"]):
        if i > 0:
            left += PICTURE + (GAP if style == prompts["style"][i - 1] else STYLE_GAP)
        lefts.append(left)
    return lefts


def _head(figure: Figure, spec: FigureSpec, prompts: pd.DataFrame, lefts: list[float]) -> None:
    """Title, caption, and the name of each style over a rule as wide as its columns."""
    title(figure, spec.title, spec.caption)
    for style in prompts["style"].unique():
        columns = [
            left for left, name in zip(lefts, prompts["style"], strict=True) if name == style
        ]
        left, right = columns[0], columns[-1] + PICTURE
        inches_text(
            figure,
            (left + right) / 2,
            HEAD - 0.13,
            style,
            size=8,
            color=INK,
            va="bottom",
            ha="center",
        )
        rule = inches_axes(figure, left, HEAD - 0.1, right - left, 0.02)
        rule.axhline(0.5, color=RULE, linewidth=0.8)
        rule.set_axis_off()
