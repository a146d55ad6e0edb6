"""What the Makefile hands to Snakemake, and what it shows at the end.

python -m mixgrpo.planning.targets --preset tiny [--seeds 3] [--tables "1 4"]

Writes two lines: Snakemake's options, and the tables that will have been made.
"""

import sys

from mixgrpo.planning.command import Request, answer
from mixgrpo.planning.load import SWEEP

FIRST = "table01"
"""The table that is made before all others when it is among them."""


def targets(request: Request) -> str:
    """Both lines."""
    tables = [name for name in request.experiment.tables if name != SWEEP]
    asked = [name for name in request.names if name in tables] if request.names else tables
    options = list(request.options)
    if FIRST in asked:
        options += ["--prioritize", f"{request.experiment.results}/tables/{FIRST}.md"]
    if request.targets:
        options += ["--", *request.targets]
    return f"{' '.join(options)}\n{' '.join(asked)}"


if __name__ == "__main__":
    sys.exit(answer(targets, __doc__))
