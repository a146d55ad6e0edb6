"""Any folder of pictures with their prompts, to be scored outside the workflow.

The prompts file is a text with a line for each picture, in the order of the files' names; or a csv (.csv) or tsv
(.tsv) with the columns file and prompt, and a row for each.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from mixgrpo.errors import UserError
from mixgrpo.imagesets import key_of, read_pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
MAX_PIXELS = 2**26
"""Of one shard: 768 MiB as fp32 tensors."""


@dataclass(frozen=True)
class Picture:
    """One picture and what it should show."""

    path: Path
    file: str
    """As the prompts file calls it, or its name."""
    prompt: str
    width: int
    height: int

    def pixels(self) -> Tensor:
        """(3, H, W) in [0, 1]; transparency is left out. UserError when it cannot be read."""
        try:
            return read_pixels(self.path)
        except ValueError as error:
            raise UserError(_unreadable(self.path, error)) from None


def read_folder(folder: Path, prompts: Path) -> list[Picture]:
    """Every picture of `folder` with its prompt. UserError names what is missing, left over or no picture."""
    if not folder.is_dir():
        raise UserError(f"--images {folder}: wanted a folder of pictures, there is none.")
    files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES and p.is_file()]
    files = [path for path in files if not path.name.startswith(".")]
    if not files and prompts.suffix not in (".csv", ".tsv"):
        raise UserError(
            f"--images {folder} holds no pictures (files ending in {' '.join(SUFFIXES)})."
        )
    rows = _read_prompts(folder, prompts, files)
    return [_picture(folder / file, file, prompt) for file, prompt in rows]


def key_of_pictures(pictures: Sequence[Picture]) -> str:
    """Changes when a picture or a prompt does."""
    stats = [(picture, picture.path.stat()) for picture in pictures]
    return key_of({"pictures": [(p.file, p.prompt, s.st_size, s.st_mtime_ns) for p, s in stats]})


def shards_of(pictures: Sequence[Picture], size: int) -> Iterator[range]:
    """Neighbours that are scored together: at most `size`, and few enough to fit in memory."""
    start, pixels = 0, 0
    for i, picture in enumerate(pictures):
        pixels += picture.width * picture.height
        if i > start and (i - start == size or pixels > MAX_PIXELS):
            yield range(start, i)
            start, pixels = i, picture.width * picture.height
    if start < len(pictures):
        yield range(start, len(pictures))


def _picture(path: Path, file: str, prompt: str) -> Picture:
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(_unreadable(path, error)) from None
    return Picture(path, file, prompt, width, height)


def _unreadable(path: Path, error: Exception) -> str:
    return (
        f"picture {path} cannot be read ({error}). Replace it, or take it and its prompt out; what is scored "
        "already is kept."
    )


def _read_prompts(folder: Path, prompts: Path, files: Sequence[Path]) -> list[tuple[str, str]]:
    try:
        text = prompts.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--prompts {prompts} cannot be read ({error}), wanted UTF-8 text."
        ) from None
    if prompts.suffix in (".csv", ".tsv"):
        return _rows(folder, prompts, text)
    lines = text.splitlines()
    if len(lines) != len(files):
        raise UserError(
            f"{folder} has {len(files)} pictures ({files[0].name} to {files[-1].name}), {prompts} has {len(lines)} "
            "lines; wanted a line for each picture, in the order of their names. Or give a csv with the columns file "
            "and prompt."
        )
    return [(path.name, line) for path, line in zip(files, lines, strict=True)]


def _rows(folder: Path, prompts: Path, text: str) -> list[tuple[str, str]]:
    delimiter = "," if prompts.suffix == ".csv" else "\t"
    reader = csv.DictReader(text.splitlines(keepends=True), delimiter=delimiter)
    columns = reader.fieldnames or []
    if "file" not in columns or "prompt" not in columns:
        raise UserError(f"{prompts} has the columns {', '.join(columns)}; wanted file and prompt.")
    rows = []
    for row in reader:
        file, prompt = row["file"], row["prompt"]
        if not file or prompt is None:
            raise UserError(f"{prompts}, line {reader.line_num}: wanted a file and its prompt.")
        if not (folder / file).is_file():
            raise UserError(
                f"{prompts}, line {reader.line_num}: there is no picture {folder / file}."
            )
        rows.append((file, prompt))
    if not rows:
        raise UserError(f"{prompts} has no rows, wanted one for each picture.")
    return rows
