"""Metrics are defined once, documented, and never repeated by a resumed run."""

import json
from pathlib import Path

import pytest

from mixgrpo.errors import UserError
from mixgrpo.training.metrics import METRICS, MetricsFile

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_docs_define_every_metric_in_the_code_s_words():
    rows = dict(
        line.strip("| ").split(" | ")
        for line in DOCS.read_text().splitlines()
        if line.startswith("| `")
    )
    documented = {key.strip("`"): text.replace("&#124;", "|") for key, text in rows.items()}
    assert documented == METRICS


def write(path: Path, iterations: range) -> None:
    path.write_text("".join(json.dumps({"iteration": i, "loss": 0.5}) + "\n" for i in iterations))


def test_rows_after_the_checkpoint_are_dropped_also_a_torn_one(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(5))
    with path.open("a") as file:
        file.write('{"iteration": 5, "lo')
    rows = MetricsFile(path, completed=3)
    rows.append({"iteration": 3, "loss": 0.25})
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["iteration"] for row in written] == [0, 1, 2, 3]
    assert written[3]["loss"] == 0.25


def test_missing_rows_are_an_error(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(2))
    with pytest.raises(UserError, match="holds 2 rows but its checkpoint has 4"):
        MetricsFile(path, completed=4)
