"""Stage `figure`: images, metrics, scores or measurements -> one figure, as png and pdf."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from mixgrpo import report
from mixgrpo.errors import UserError
from mixgrpo.report.figure_spec import read_figure_spec
from mixgrpo.report.style import house_style, save

KINDS = (".png", ".pdf")


def run(*, spec: Path, outputs: Sequence[Path]) -> None:
    """Draw what `spec` says, by the file that it names; the suffix of each output says how it is saved."""
    shown = read_figure_spec(spec)
    if shown.draw not in figures():
        raise UserError(
            f"figure {shown.name}: draw is {shown.draw!r}, and what draws is a file in mixgrpo/report/ with "
            f"a function draw. There are: {', '.join(figures())}."
        )
    for output in outputs:
        if output.suffix not in KINDS:
            raise UserError(f"{output}: wanted a file ending in {' or '.join(KINDS)}.")
    module = importlib.import_module(f"mixgrpo.report.{shown.draw}")
    with house_style():
        figure = module.draw(shown)
        for output in outputs:
            save(figure, output, name=shown.title, caption=shown.caption, origin=shown.origin())


def figures() -> list[str]:
    """What a figure may be drawn by: files of mixgrpo/report/ that define `draw`."""
    files = Path(report.__file__).parent.glob("[!_]*.py")
    return sorted(file.stem for file in files if "\ndef draw(" in file.read_text())
