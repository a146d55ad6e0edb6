"""How long the workflow plans: a dry run with 50, 500 and 5,000 more trained cells than the real configuration.

python benchmarks/dag.py [cells ...]

They are made up: `mixgrpo` with other learning rates, five to a table. Goal: 5,000 within 60 seconds.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("Snakefile", "config", "workflow", "mixgrpo", "environment.yml")
CELLS_OF_A_TABLE = 5
SHOWN = ("train", "table", "total")


def main() -> None:
    """Print a line for each size."""
    sizes = [int(word) for word in sys.argv[1:]] or [50, 500, 5000]
    for num_cells in sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            copy_workflow(root)
            add_cells(root / "config", num_cells)
            seconds, counts = plan(root)
            print(f"{num_cells} cells more, {counts}: planned in {seconds:.1f} s", flush=True)


def copy_workflow(root: Path) -> None:
    """What planning reads."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)


def add_cells(config: Path, num_cells: int) -> None:
    """Cells that differ in their learning rate, and the tables that show them."""
    cells = yaml.safe_load((config / "cells.yaml").read_text())
    sheet = yaml.safe_load((config / "tables.yaml").read_text())
    model = sheet["tables"]["table05"]
    made = [f"made_up_{number}" for number in range(num_cells)]
    for number, name in enumerate(made):
        learning_rate = 1e-5 * (1 + number / num_cells)
        cells[name] = {"method": "mixgrpo", "training": {"learning_rate": learning_rate}}
    for start in range(0, num_cells, CELLS_OF_A_TABLE):
        rows = [{"cell": name, "label": name} for name in made[start : start + CELLS_OF_A_TABLE]]
        sheet["tables"][f"made_up_{start}"] = model | {"rows": rows, "published": None}
    (config / "cells.yaml").write_text(yaml.safe_dump(cells))
    (config / "tables.yaml").write_text(yaml.safe_dump(sheet))


def plan(root: Path) -> tuple[float, str]:
    """Seconds of a dry run, and how many jobs of a few kinds it plans."""
    environment = {**os.environ, "PYTHONPATH": "workflow/plugins"}
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    counts = dict(line.split() for line in done.stdout.splitlines() if line.startswith(SHOWN))
    return seconds, ", ".join(f"{counts[name]} jobs {name}".strip() for name in SHOWN)


if __name__ == "__main__":
    main()
