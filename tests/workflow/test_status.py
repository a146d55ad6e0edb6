"""`make status` and the names of tables, as people read and write them."""

import doctest
import json
import os
import socket
import time
from pathlib import Path

import pytest
import snakemake.jobs

from mixgrpo.planning import forecast, running, staleness
from mixgrpo.planning.accept import acceptable
from mixgrpo.planning.staleness import Cause, Job, causes
from mixgrpo.planning.status import why
from tests.workflow.checkout import TRAINED

CHANGED = (
    "Params have changed since last execution: "
    "Union of exclusive params before and now across all output: before: {before} now: {now} "
)


def job(rule: str = "train", reason: str = "", **changes) -> Job:
    wildcards = {"cell": "flash", "seed": "0"}
    known = {"wildcards": wildcards, "input": (), "output": (rule,), "message": "work"}
    return Job(rule=rule, reason=reason, **(known | changes))


def changed(rule: str, before: object, now: object) -> Job:
    """A job whose plan changed."""
    texts = {"before": repr(json.dumps(before)), "now": repr(json.dumps(now))}
    return job(rule, CHANGED.format(**texts), message=None)


# Reasons


def test_a_setting_that_changed_is_named_with_both_values():
    before = {"training": {"learning_rate": 5e-5}, "rewards": {"hps": {"weight": 1}}, "code": "a"}
    now = {"training": {"learning_rate": 1e-4}, "rewards": {"clip": {"weight": 1}}, "code": "b"}
    assert causes(changed("settings", before, now)) == [
        Cause("code", "the code of training changed"),
        Cause("plan", "new reward: clip"),
        Cause("plan", "gone reward: hps"),
        Cause("plan", "training.learning_rate 5e-05 -> 0.0001"),
    ]


def test_a_setting_that_came_with_the_code_is_no_change_of_plan():
    assert causes(changed("settings", {}, {"training": {"lora": None}})) == [
        Cause("code", "the setting training.lora is new (null)")
    ]
    (found, *_) = causes(changed("settings", {"dpo": None}, {"dpo": {"beta": 100}}))
    assert found.kind == "plan"


@pytest.mark.parametrize(
    ("rule", "before", "now", "text"),
    [
        ("rewards", {"a": {}}, {"a": {}, "redness": {}}, "new reward: redness"),
        ("rewards", {"a": {"path": "x"}}, {"a": {"path": "y", "options": {}}}, "a.path x -> y"),
        (
            "settings",
            {"rewards": {"a": {"weight": 1}}},
            {"rewards": {"a": {"weight": 1, "options": {"backend": "native"}}}},
            "rewards.a.options.backend null -> native",
        ),
        (
            "evaluation",
            {"sets": []},
            {"sets": [{"dataset": "d", "split": "test", "p_mix": 0.8}]},
            "new set of pictures: d test at p_mix 0.8",
        ),
        ("table_spec", {"title": "it's"}, {"title": "now: it"}, "its sheet changed (title)"),
        ("pretrain_settings", {"vae_steps": 1}, {"vae_steps": 2}, "vae_steps 1 -> 2"),
    ],
)
def test_what_changed_in_a_plan(rule, before, now, text):
    assert causes(changed(rule, before, now)) == [Cause("plan", text)]


def test_code_is_told_from_other_parameters():
    modules = ":mixgrpo.stages.score,mixgrpo.rewards."
    old, new = f"{'0' * 12}{modules}a", f"{'1' * 12}{modules}a"
    reason = CHANGED.format(before=f"{old!r}", now=f"{new!r}")
    assert causes(job("score", reason)) == [Cause("code", "the code of scoring changed")]
    reason = CHANGED.format(before=f"{old!r}", now=f"{new + ',mixgrpo.rewards.b'!r}")
    assert causes(job("score", reason)) == [
        Cause("plan", "runs other modules than before (rewards.b)")
    ]
    reason = CHANGED.format(before="96", now="192")
    assert causes(job("prompts", reason)) == [Cause("plan", "96 -> 192")]
    reason = CHANGED.format(before="'a", now="192")
    assert causes(job("prompts", reason)) == [Cause("plan", "its parameters changed")]


def test_other_reasons():
    assert causes(job(reason="Input files updated by another job: a, b")) == []
    assert causes(job(reason="Missing output files: a; Code has changed since last execution")) == [
        Cause("missing", "not made yet")
    ]
    assert causes(job(reason="Missing output files: a; Incomplete output files: a")) == [
        Cause("missing", "was interrupted")
    ]
    assert causes(job(reason="Updated input files: results/runs/flash/seed0/settings.json")) == [
        Cause("files", "its settings.json changed", ("results/runs/flash/seed0/settings.json",))
    ]


def test_every_head_of_a_reason_is_one_that_snakemake_writes():
    source = Path(snakemake.jobs.__file__).read_text()
    for head in staleness.HEADS:
        assert head in source, head


def test_only_what_is_stale_by_code_is_acceptable():
    code = "Code has changed since last execution"
    first = job("train", code, output=("model",))
    second = job("generate", "Input files updated by another job: model", input=("model",))
    other = job("score", "Missing output files: x", output=("x",))
    last = job("table", code, input=("x",))
    assert acceptable([second, first, other, last]) == [first, second]


@pytest.mark.parametrize("module", [forecast, staleness])
def test_examples_in_docstrings_hold(module):
    assert doctest.testmod(module).failed == 0


# What people read


def test_causes_are_grouped_and_what_follows_is_not_repeated():
    code = "Code has changed since last execution"
    jobs = [
        job("train", code, wildcards={"cell": name, "seed": "0"}, output=(f"{name}.model",))
        for name in ("flash", "mixgrpo")
    ]
    jobs.append(job("generate", "Missing output files: y", output=("y",)))
    jobs.append(job("score", "Missing output files: x", input=("y",)))
    assert why(jobs) == [
        "  2 cells (flash, mixgrpo): the rule train of the workflow changed",
        "  flash, seed 0: not made yet",
    ]


def test_status_of_a_finished_workflow(checkout):
    assert "Everything is up to date." in checkout.planning("status")


def test_status_names_the_setting_and_the_cost(checkout):
    checkout.edit("config/cells.yaml", r"(mixgrpo_window2:.*?)size: 2", r"\1size: 3")
    said = checkout.planning("status", "--cores", "2")
    assert "  mixgrpo_window2, seed 0: window.size 2 -> 3\n" in said
    assert "train: 1 cell (mixgrpo_window2)" in said
    assert "make tables: 2 tables (table06, table13)" in said
    assert "about a minute on 2 cores" in said
    assert len(said.splitlines()) < 20


def test_status_of_a_big_change_is_short(checkout):
    checkout.append("mixgrpo/algorithm/loss.py")
    said = checkout.planning("status", "--tables", "1 3")
    assert "the code of training changed" in " ".join(said.split())
    assert "make tables: 2 tables (table01, table03)" in said
    assert len(said.splitlines()) < 30
    assert max(map(len, said.splitlines())) <= 100


def test_measured_times_come_before_the_presets(checkout):
    benchmark = checkout.root / "results/smoke/benchmarks/train/flash/seed0.tsv"
    before = benchmark.read_text()
    benchmark.write_text("s\th:m:s\n5400.0\t1:30:00\n")
    checkout.edit("config/methods/flash.yaml", "interval: 20", "interval: 21")
    said = checkout.planning("status", "--tables", "1")
    benchmark.write_text(before)
    assert "about 1.5 hours" in said


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ("1 4", "results/smoke/tables/table01.md results/smoke/tables/table04.md"),
        ("table04,figure05", "results/smoke/tables/table04.md results/smoke/figures/figure05.png"),
    ],
)
def test_tables_are_asked_for_by_number_or_name(checkout, asked, made):
    options, tables = checkout.planning("targets", "--tables", asked, "--seeds", "2").splitlines()
    assert options.startswith("--config preset=smoke seeds=[0,1]")
    assert options.endswith(f" -- {made}")
    assert ("--prioritize results/smoke/tables/table01.md" in options) == ("table01" in tables)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tables", "15"), "TABLES='15': 'table15' is not known"),
        (("--tables", "tabel01"), "did you mean 'table01'"),
        (("--seeds", "0"), "SEEDS=0: wanted a number of seeds, 1 or more."),
        (("--seeds", "x"), "SEEDS=x: wanted"),
    ],
)
def test_a_wrong_name_or_number_is_told(checkout, options, message):
    said = checkout.planning("targets", *options, check=False)
    assert message in said
    assert "Traceback" not in said


def test_all_tables_and_the_first_of_them_first(checkout):
    options, tables = checkout.planning("targets").splitlines()
    assert options == "--config preset=smoke --prioritize results/smoke/tables/table01.md"
    assert tables.split() == [f"table{number:02d}" for number in range(1, 15)]


# What runs


def state(**changes) -> str:
    known = {"host": socket.gethostname(), "pid": os.getpid(), "started": 0, "done": 3, "total": 9}
    work = {"message": "Training flash, seed 0", "progress": "2 of 4 iterations"}
    return json.dumps(known | {"jobs": [work]} | changes)


def test_running_workflows_are_told_from_dead_ones(tmp_path):
    (tmp_path / "here.json").write_text(state())
    (tmp_path / "killed.json").write_text(state(pid=2**22 + 1))
    (tmp_path / "elsewhere.json").write_text(state(host="elsewhere"))
    (tmp_path / "silent.json").write_text(state(host="elsewhere"))
    (tmp_path / "broken.json").write_text("{")
    os.utime(tmp_path / "silent.json", (time.time() - 3600,) * 2)
    found = running.workflows(tmp_path)
    assert len(found) == 2
    lines = found[1].lines()
    assert "3 of 9 jobs done" in lines[0]
    assert lines[1] == "  Training flash, seed 0: 2 of 4 iterations"


def test_long_lists_are_cut():
    assert len(TRAINED) == 49
    assert forecast.listed(sorted(TRAINED), "cell").endswith("and 37 more)")
