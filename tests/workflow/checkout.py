"""A copy of the workflow in a folder of its own, on which tests run Snakemake."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COPIED = ("Snakefile", "config", "workflow", "mixgrpo", "environment.yml")
CELLS = yaml.safe_load((ROOT / "config/cells.yaml").read_text())
TRAINED = {name for name, block in CELLS.items() if "method" in block}
UNTRAINED = CELLS.keys() - TRAINED
OF_SD3 = {name for name in TRAINED if name.startswith("sd3_")}
PRESET = "preset=smoke"
# Snakemake waits 0.1 s for each file that it touches.
TOUCH = (
    "import sys; from snakemake.executors.touch import Executor; from snakemake.cli import main; "
    "Executor.SLEEPING_TIME = 0; main(sys.argv[1:])"
)

Stale = set[tuple[str, str]]
"""(rule, output) of everything that would be made again."""


class Checkout:
    """With results of preset smoke: none, pretended or real ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, root / name)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": "workflow/plugins",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, env=self.environment
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def snakemake(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "snakemake", *options, check=check)

    def planning(self, verb: str, *options: str, check: bool = True) -> str:
        """What the Makefile calls: status, accept, targets."""
        module = f"mixgrpo.planning.{verb}"
        done = self.run(sys.executable, "-m", module, "--preset", "smoke", *options, check=check)
        return done.stdout if check else done.stderr

    def summary(self, *config: str) -> list[dict[str, str]]:
        """Snakemake's own table of outputs: file, rule, status, plan."""
        done = self.snakemake("--summary", "--config", PRESET, *config)
        lines = done.stdout.splitlines()
        names, *rows = [line.split("\t") for line in lines if "\t" in line]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def pretend_finished(self) -> None:
        """A placeholder for every output, and the records of a run that made them.

        Trainings have their benchmark too: Snakemake takes it for one more output, as old as it is.
        """
        for row in self.summary():
            path = self.root / row["output_file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("placeholder")
            if row["rule"] == "train":
                run = row["output_file"].rpartition("/")[0].replace("/runs/", "/benchmarks/train/")
                benchmark = self.root / f"{run}.tsv"
                benchmark.parent.mkdir(parents=True, exist_ok=True)
                benchmark.write_text("s\th:m:s\n8.0\t0:00:08\n")
        options = ("--touch", "--forceall", "--cores", "1", "--config", PRESET)
        self.run(sys.executable, "-c", TOUCH, *options)

    def stale(self, *config: str) -> Stale:
        rows = [row for row in self.summary(*config) if row["plan"] != "no update"]
        return {(row["rule"], row["output_file"]) for row in rows}

    def edit(self, file: str, pattern: str, replacement: str) -> None:
        """Replace the one place that matches `pattern`."""
        path = self.root / file
        text, count = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.M | re.S)
        assert count == 1, f"{pattern!r} is not in {file}"
        path.write_text(text)

    def append(self, file: str, text: str = "SCALE = 2\n") -> None:
        """Add a line to a file; by default one that changes its code."""
        with (self.root / file).open("a") as stream:
            stream.write(text)


def rules(stale: Stale) -> set[str]:
    return {rule for rule, _ in stale}


def cells(stale: Stale, *only: str) -> set[str]:
    """Cells among the outputs of the rules `only`."""
    found = [re.search(r"/(\w+)/seed\d+/", output) for rule, output in stale if rule in only]
    return {match[1] for match in found if match}


def names(stale: Stale, rule: str) -> set[str]:
    """File names, without their endings, of what one rule makes."""
    return {Path(output).stem for made_by, output in stale if made_by == rule}
