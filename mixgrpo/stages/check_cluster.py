"""Stage `check-cluster`: before a run is submitted to Slurm, whether the cluster can run it."""

import sys
from pathlib import Path

from mixgrpo.cluster.commands import ask
from mixgrpo.cluster.preflight import Findings, planned, preflight
from mixgrpo.errors import UserError


def run(*, profile: Path, preset: str, seeds: str, tables: str) -> None:
    """Write what was found. UserError with every problem, when there is one.

    profile: its file or folder. The others: as `make reproduce` has them.
    """
    findings = preflight(profile, planned(preset, seeds=seeds, tables=tables), ask)
    if findings.problems:
        raise UserError(refusal(findings))
    sys.stdout.write("\n".join([*findings.notes, *warned(findings)]) + "\n")


def refusal(findings: Findings) -> str:
    """Every problem and every warning."""
    number = len(findings.problems)
    lines = [f"{'a problem' if number == 1 else f'{number} problems'}; nothing was submitted."]
    lines += [f"- {problem}" for problem in findings.problems]
    lines += warned(findings)
    lines += [
        "What jobs need is set by `jobs` of the preset (config/presets) and, above it, by the profile: docs/slurm.md."
    ]
    return "\n".join(lines)


def warned(findings: Findings) -> list[str]:
    """Lines of warning."""
    return [f"warning: {warning}" for warning in findings.warnings]
