"""A labelled picture of what a base model draws on captions that it never saw."""

import textwrap
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mixgrpo.tiny.grammar import FORMS, sample_captions
from mixgrpo.tiny.render import SIZE

COLUMNS, ROWS_PER_DATASET = 8, 3
SCALE = 4
GAP, LABEL = 12, 56
FONT_SIZE, LETTERS = 13, 19
INK, PAPER = (40, 40, 40), (255, 255, 255)


def save_samples(draw: Callable[[list[str]], Tensor], path: Path) -> None:
    """A grid of test captions, three rows of each dataset, every picture with its caption below.

    draw: captions (N) -> pictures (N, 3, 32, 32) in [0, 1].
    """
    captions = [
        caption
        for dataset in FORMS
        for caption in sample_captions(dataset, "test", COLUMNS * ROWS_PER_DATASET)
    ]
    images = draw(captions)
    cell, rows = SIZE * SCALE, len(captions) // COLUMNS
    size = (COLUMNS * (cell + GAP) + GAP, rows * (cell + LABEL) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(i, COLUMNS)
        corner = (GAP + column * (cell + GAP), GAP + row * (cell + LABEL))
        pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
        picture = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(picture, corner)
        _write(sheet, caption, center=corner[0] + cell // 2, top=corner[1] + cell + 4)
    sheet.save(path)


def _write(sheet: Image.Image, caption: str, *, center: int, top: int) -> None:
    label = "\n".join(textwrap.wrap(caption, width=LETTERS))
    font = ImageFont.load_default(size=FONT_SIZE)
    ImageDraw.Draw(sheet).multiline_text(
        (center, top), label, fill=INK, font=font, anchor="ma", align="center"
    )
