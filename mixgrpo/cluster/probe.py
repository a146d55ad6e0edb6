"""Whether nodes see the folder that jobs work in: a moment's job in each partition."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

from mixgrpo.cluster.commands import Ask
from mixgrpo.cluster.needs import Need, of_site

WAIT = 30
"""Seconds for a node to be free."""
PATIENCE = 60.0
SCRIPT = """
echo "on ${SLURMD_NODENAME:-$(hostname)}"
cd "$1" 2> /dev/null || { echo no folder; exit; }
test -e "$2" || { echo other folder; exit; }
test -w . || { echo read only; exit; }
test -x "$3" || { echo no python; exit; }
"$3" -c 'import numpy, mixgrpo' 2>&1 || { echo broken python; exit; }
echo fine
"""
"""Its arguments: the folder, a file that was just written there, the interpreter."""
FOLDERS = "Work in a folder of a file system that all nodes share (ask for its name: /scratch, /work, the home folders)"
PROBLEMS = {
    "no folder": "this folder, {folder}, is not there. {folders}.",
    "other folder": "{folder} is another folder than here: what was just written here is not there. {folders}.",
    "read only": "{folder} cannot be written to. {folders}.",
    "no python": "the interpreter {python}, or what it is a link to, is not there. Let .venv be in this folder and "
    "not a link to elsewhere, made by a Python that the nodes have too: make environment PYTHON=/path/on/all/nodes.",
    "broken python": "the interpreter {python} does not work: {words}. Remove .venv and set it up with a Python that "
    "the nodes have too: make environment PYTHON=/path/on/all/nodes.",
}


@dataclass(frozen=True)
class Probed:
    """What came of it, at most one of the three."""

    node: str = ""
    problem: str = ""
    unknown: str = ""
    """Why nothing is known."""


def probe(need: Need, ask: Ask) -> Probed:
    """From a node of the partition of `need`."""
    place = f"partition {need.partition}" if need.partition else "the default partition"
    folder = Path.cwd()
    try:
        with NamedTemporaryFile(dir=folder, prefix=".check-cluster-") as mark:
            script = ("sh", "-c", SCRIPT, "sh", str(folder), mark.name, sys.executable)
            answer = ask(*command(need), *script, patience=PATIENCE)
    except OSError as error:
        return Probed(problem=f"this folder cannot be written to: {error}.")
    lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
    if not lines or not lines[0].startswith("on "):
        free = "Unable to allocate" in answer.error or answer.status is None
        why = f"no node was free within {WAIT} s" if free else f"srun said: {answer.complaint}"
        return Probed(
            unknown=f"{place}: whether its nodes see this folder is not known, for {why}."
        )
    node, word = lines[0].removeprefix("on "), lines[-1]
    if word == "fine":
        return Probed(node=node)
    text = PROBLEMS.get(word, f"the check ended with {word!r}.").format(
        folder=folder,
        folders=FOLDERS,
        python=sys.executable,
        words=lines[-2].rstrip(".") if len(lines) > 2 else "it says nothing",
    )
    return Probed(problem=f"on node {node} of {place}, {text}")


def command(need: Need) -> list[str]:
    """A minute on one core; nothing when no node is free for it."""
    options = [
        "srun",
        "-N1",
        "-n1",
        "-t",
        "1",
        "--mem=200",
        f"--immediate={WAIT}",
        "-J",
        "check-cluster",
    ]
    return [*options, *of_site(need)]


def places(needs: Iterable[Need]) -> list[Need]:
    """One need for each partition."""
    return list({need.partition: need for need in needs}.values())
