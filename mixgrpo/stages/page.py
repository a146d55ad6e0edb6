"""Stage `page`: every table and figure -> one html file."""

from collections.abc import Sequence
from pathlib import Path

from mixgrpo.files import write_text
from mixgrpo.report import page


def run(*, tables: Sequence[Path], figures: Sequence[Path], output: Path) -> None:
    """`tables`: html of the stage `table`; `figures`: png of the stage `figure`; in the page's order."""
    write_text(output, page.render(tables, figures))
