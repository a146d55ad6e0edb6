"""The page of everything: every table and figure of a preset in one html file that needs nothing else."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

from PIL import Image

from mixgrpo.errors import UserError
from mixgrpo.report import html
from mixgrpo.report.inputs import read_text

OPENING = re.compile(
    r'<article id="(?P<name>[^"]*)" data-title="(?P<title>[^"]*)" data-origin="(?P<origin>[^"]*)">'
)


@dataclass(frozen=True)
class Part:
    """One table or figure."""

    name: str
    title: str
    origin: str
    """Preset, scale and seeds."""
    body: str
    """Its article."""


def render(tables: Sequence[Path], figures: Sequence[Path]) -> str:
    """`tables`: html files of the stage `table`; `figures`: png files of the stage `figure`; in order."""
    found = {
        "Tables": [read_table(path) for path in tables],
        "Figures": [read_figure(path) for path in figures],
    }
    parts = [part for section in found.values() for part in section]
    if not parts:
        raise UserError("a page shows at least one table or figure; it was given none.")
    origins = list(dict.fromkeys(part.origin for part in parts))
    contents = "".join(_contents(name, section) for name, section in found.items() if section)
    body = "\n".join(
        [
            "<header><h1>MixGRPO: every table and figure</h1>",
            *(f'<p class="origin">{escape(_sentence(origin))}</p>' for origin in origins),
            f"{contents}</header>",
            *(part.body for part in parts),
        ]
    )
    return html.page("MixGRPO: every table and figure", body)


def _sentence(origin: str) -> str:
    return f"{origin[:1].upper()}{origin[1:]}." if origin else ""


def _contents(name: str, section: Sequence[Part]) -> str:
    items = "".join(
        f'<li><a href="#{escape(part.name)}">{escape(part.title)}</a></li>' for part in section
    )
    return f"<h3>{name}</h3><nav><ol>{items}</ol></nav>"


def read_table(path: Path) -> Part:
    """The article of a table's html file."""
    remedy = f"`snakemake {path}` writes it"
    text = read_text(path, remedy=remedy)
    opening, end = OPENING.search(text), text.rfind(html.ARTICLE_END)
    if opening is None or end < opening.end():
        raise UserError(f"{path}: no table in it. Delete it; {remedy}.")
    body = text[opening.start() : end + len(html.ARTICLE_END)]
    name, title, origin = (unescape(opening[key]) for key in ("name", "title", "origin"))
    return Part(name, title, origin, body)


def read_figure(path: Path) -> Part:
    """A png as an image inside the page; its title, caption and origin are read from itself."""
    remedy = f"`snakemake {path}` draws it"
    try:
        data = path.read_bytes()
        with Image.open(path) as image:
            image.load()
            said = {key: str(image.info.get(key, "")) for key in ("Title", "Description", "Source")}
            width, height = image.size
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. {remedy}.") from None
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: not a whole picture ({error}). Delete it; {remedy}.") from None
    title = said["Title"] or path.stem
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    words = escape(f"{title}. {said['Description']}")
    body = (
        f'<article id="{escape(path.stem)}">\n'
        f'<img src="{source}" width="{width // 2}" height="{height // 2}" '
        f'alt="{words}">\n</article>'
    )
    return Part(path.stem, title, said["Source"], body)
