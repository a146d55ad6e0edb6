"""What the Makefile says to the planner, and what the planner asks of Snakemake."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixgrpo.errors import UserError
from mixgrpo.planning.checking import unknown
from mixgrpo.planning.experiment import Experiment
from mixgrpo.planning.load import SWEEP, load
from mixgrpo.planning.staleness import Job

CONFIG = Path("config")


@dataclass(frozen=True)
class Request:
    """Which part of which experiment a person asks for."""

    experiment: Experiment
    options: tuple[str, ...]
    """Snakemake's own, that say the same."""
    names: tuple[str, ...]
    """Tables and figures that were asked for; none means all."""
    cores: int

    @property
    def targets(self) -> list[str]:
        """Files to make; none means all."""
        tables, results = self.experiment.tables, self.experiment.results
        return [
            f"{results}/tables/{name}.md" if name in tables else f"{results}/figures/{name}.png"
            for name in self.names
        ]

    def snakemake(self, *options: str, targets: Sequence[str] = ()) -> str:
        """Run Snakemake on the targets and return what it writes to stdout. UserError with its words if it fails."""
        command = [sys.executable, "-m", "snakemake", *options, *self.options, "--", *targets]
        environment = {**os.environ, "PYTHONPATH": "workflow/plugins"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise UserError(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def stale_jobs(self, *options: str) -> list[Job]:
        """What a run with these options would do now, though another one may be at work."""
        dry_run = ("--dry-run", "--rerun-incomplete", "--logger", "jobs", *options)
        lines = self.snakemake(*dry_run, targets=self.targets).splitlines()
        jobs = [Job(**json.loads(line)) for line in lines if line.startswith("{")]
        return [job for job in jobs if job.output]


def read_request(arguments: Sequence[str] | None, *, doc: str | None) -> Request:
    """From the command line of a module of this folder. UserError lists what is wrong."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--preset", required=True)
    parser.add_argument("--seeds", default="", help="number of training seeds; empty: the config's")
    parser.add_argument("--tables", default="", help="such as `1 4 figure04`; empty: all")
    parser.add_argument("--cores", type=int, default=1)
    given = parser.parse_args(arguments)
    return make_request(given.preset, seeds=given.seeds, tables=given.tables, cores=given.cores)


def make_request(preset: str, *, seeds: str, tables: str, cores: int) -> Request:
    """From the words of the Makefile. UserError lists what is wrong."""
    overrides: dict[str, Any] = {"preset": preset}
    options = ["--config", f"preset={preset}"]
    if seeds:
        if not seeds.isdecimal() or int(seeds) < 1:
            raise UserError(f"SEEDS={seeds}: wanted a number of seeds, 1 or more.")
        overrides["seeds"] = list(range(int(seeds)))
        options.append(f"seeds=[{','.join(map(str, overrides['seeds']))}]")
    experiment = load(CONFIG, overrides)
    names = tuple(dict.fromkeys(read_names(experiment, tables)))
    return Request(experiment, tuple(options), names, cores)


def read_names(experiment: Experiment, text: str) -> list[str]:
    """Tables and figures in `1 4 figure04`. UserError for one that is not there."""
    tables = [name for name in experiment.tables if name != SWEEP]
    names = []
    for word in text.replace(",", " ").split():
        name = f"table{int(word):02d}" if word.isdecimal() else word
        if name not in (*tables, *experiment.figures):
            raise UserError(
                f"TABLES={text!r}: {unknown(name, [*tables, *experiment.figures])} "
                'A number stands for a table: TABLES="1 4" makes table01 and table04.'
            )
        names.append(name)
    return names


def answer(run: Callable[[Request], str], doc: str | None) -> int:
    """Write what `run` says; exit status 2 and a message on stderr for what a person can mend."""
    try:
        text = run(read_request(None, doc=doc))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{text}\n")
    return 0
