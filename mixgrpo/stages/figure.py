"""Stage `figure`: images or metrics -> one figure, as png and pdf."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from mixgrpo import report
from mixgrpo.errors import UserError
from mixgrpo.report.figure_spec import read_figure_spec
from mixgrpo.report.style import house_style, save

KINDS = (".png", ".pdf")


def run(*, name: str, spec: Path, outputs: Sequence[Path]) -> None:
    """Draw `mixgrpo/report/{name}.py`; the suffix of each output says how it is saved."""
    if name not in figures():
        raise UserError(
            f"no figure {name!r}: a figure is a file in mixgrpo/report/ with a function draw. "
            f"There are: {', '.join(figures())}."
        )
    for output in outputs:
        if output.suffix not in KINDS:
            raise UserError(f"{output}: wanted a file ending in {' or '.join(KINDS)}.")
    module = importlib.import_module(f"mixgrpo.report.{name}")
    with house_style():
        figure = module.draw(read_figure_spec(spec))
        for output in outputs:
            save(figure, output)


def figures() -> list[str]:
    """Names of the figures there are: files of mixgrpo/report/ that define `draw`."""
    files = Path(report.__file__).parent.glob("[!_]*.py")
    return sorted(file.stem for file in files if "\ndef draw(" in file.read_text())
