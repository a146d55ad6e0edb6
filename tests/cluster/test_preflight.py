"""Every bad input is found before anything is submitted, all of them at once, each in one sentence."""

from pathlib import Path

import pytest

from mixgrpo.cluster import preflight as module
from mixgrpo.cluster.commands import Answer
from mixgrpo.cluster.needs import SUBMITTED, needs_of
from mixgrpo.cluster.preflight import Findings, planned, preflight
from mixgrpo.cluster.profile import read_profile
from mixgrpo.errors import UserError
from mixgrpo.stages import check_cluster
from tests.cluster.fakes import (
    CONFIG,
    ENFORCED,
    PROFILE,
    WITH_DATABASE,
    Cluster,
    job,
    score,
    write_profile,
)
from tests.workflow.checkout import Checkout


@pytest.fixture
def check(tmp_path, monkeypatch):
    """The check of one train job and 3 score jobs in an empty folder, on a cluster where all is well but for..."""
    monkeypatch.chdir(tmp_path)

    def run(
        *, profile: str = PROFILE, jobs=None, which=lambda name: name, **answers: str | Answer
    ) -> Findings:
        path = write_profile(tmp_path, profile)
        planned = [job(), *[score()] * 3]
        return preflight(path, lambda _: jobs or planned, Cluster(**answers), which)

    return run


def test_a_cluster_where_all_is_well(check):
    found = check()
    assert found.problems == found.warnings == []
    assert found.notes == [
        "Slurm 22.05.8, cluster test",
        "partition batch: 2 nodes of 4 CPUs, 4000 MB, gpu:h100:2; time limit infinite",
        "to submit: 4 jobs (1 train, 3 score)",
        "largest job: train: 2 nodes of 2 GPUs, 1 CPU, 3000 MB, for 1-00:00:00 at most",
        "this folder and its Python work on node n1",
    ]


def test_nothing_is_left_in_the_folder(check, tmp_path):
    check()
    assert [path.name for path in tmp_path.iterdir()] == ["profile"]


def test_a_profile_that_is_not_there_is_not_ignored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workflow/profiles/slurm").mkdir(parents=True)
    (tmp_path / "workflow/profiles/slurm/profile.yaml").write_text(PROFILE)
    path = Path("workflow/profiles/slrum/profile.yaml")
    found = preflight(path, lambda _: [], Cluster(), lambda name: name)
    assert len(found.problems) == 1
    assert f"the profile {path} does not exist" in found.problems[0]
    assert "Profiles here: workflow/profiles/slurm." in found.problems[0]
    assert found.notes[0] == "Slurm 22.05.8, cluster test"  # the rest is asked all the same


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("executor: local", "got executor: local, wanted executor: slurm"),
        ("a: [", "cannot be read"),
        ("- a", "holds no options: got ['a']"),
    ],
)
def test_a_profile_that_is_none(check, text, sentence):
    assert sentence in check(profile=text).problems[0]


def test_no_commands(check):
    found = check(which=lambda name: None)
    assert len(found.problems) == 1
    assert "not on PATH" in found.problems[0]


def test_no_plugin(check, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "snakemake-executor-plugin-slurm" in check().problems[0]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer(None), "did not answer within 10 s"),
        (
            Answer(1, error="sinfo: error: Unable to contact slurm controller (connect failure)\n"),
            "cannot be asked: Unable to contact slurm controller (connect failure).",
        ),
    ],
)
def test_no_controller(check, answer, sentence):
    (problem,) = check(sinfo=answer).problems
    assert sentence in problem


def test_a_run_that_cannot_be_planned(tmp_path, monkeypatch):
    def plan(_):
        raise UserError("the configuration has 1 mistake")

    monkeypatch.chdir(tmp_path)
    found = preflight(write_profile(tmp_path), plan, Cluster(), lambda name: name)
    assert found.problems == ["the run cannot be planned: the configuration has 1 mistake"]


def test_all_problems_are_said_and_each_once(check):
    wrong = {"slurm_partition": "bacth"}
    jobs = [job(**wrong, gres="gpu:2"), *[score(**wrong)] * 3, job("generate", **wrong)]
    found = check(profile=PROFILE.replace("squeue", "sacct").replace("batch", "scva"), jobs=jobs)
    assert len(found.problems) == 4
    named, status, twice, every = found.problems
    assert named.startswith("default-resources.slurm_partition: partition 'scva' is not known")
    assert "Write slurm-status-command: squeue." in status
    assert twice.startswith("train: asks for GPUs twice")
    assert every.startswith("every job: partition 'bacth' is not known; did you mean 'batch'?")


def test_partitions_of_rules_that_have_nothing_to_do(check):
    profile = PROFILE + "set-resources:\n  train:\n    slurm_partition: \"'gpuu'\"\n"
    assert check(profile=profile).problems[0].startswith("set-resources.train.slurm_partition: ")
    profile = PROFILE + "set-resources: ['train:slurm_partition=gpuu']\n"
    assert check(profile=profile).problems[0].startswith("set-resources.train.slurm_partition: ")


def test_jobs_that_squeue_forgets_too_soon(check):
    (problem,) = check(scontrol=CONFIG.replace("300 sec", "60 sec")).problems
    assert "forgets a job 60 s after its end" in problem
    assert "Write slurm-init-seconds-before-status-checks: 20" in problem
    short = PROFILE + "slurm-init-seconds-before-status-checks: 20\n"
    assert check(scontrol=CONFIG.replace("300 sec", "60 sec"), profile=short).problems == []
    assert check(scontrol=WITH_DATABASE.replace("300 sec", "60 sec")).problems == []


def test_too_little_patience(check):
    (warning,) = check(profile=PROFILE.replace("360", "5")).warnings
    assert "does not answer for 50 s" in warning


def test_accounts(check):
    named = [job(slurm_account="visoin")]
    assert check(jobs=named).problems == []  # no accounting: Slurm asks for none
    (problem,) = check(jobs=named, scontrol=WITH_DATABASE, sacctmgr="root\nvision\n").problems
    assert "visoin, which is no account of user" in problem
    assert "root, vision" in problem
    right = [job(slurm_account="Vision")]
    assert check(jobs=right, scontrol=WITH_DATABASE, sacctmgr="root\nvision\n").problems == []


def test_an_account_where_the_cluster_wants_one(check):
    (problem,) = check(scontrol=ENFORCED, sacctmgr="").problems
    assert "has no account, and this cluster refuses jobs without one" in problem
    assert check(scontrol=ENFORCED, sacctmgr="vision\n").problems == []  # which is the default, too

    def no_default(command):
        return "" if "format=defaultaccount" in command else "root\nvision\n"

    (problem,) = check(scontrol=ENFORCED, sacctmgr=no_default).problems
    assert "slurm_account is not set in the profile" in problem
    assert "Yours are: root, vision." in problem


def test_what_only_slurm_knows(check):
    said = Answer(1, error="allocation failure: Invalid qos specification\n")
    found = check(jobs=[job(qos="nosuch")], sbatch=said)
    assert found.problems == [
        "train: Slurm would refuse it: Invalid qos specification. Asked was, with what a job needs: "
        "sbatch --test-only -p batch -q nosuch"
    ]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("no folder", "is not there. Work in a folder of a file system that all nodes share"),
        ("other folder", "is another folder than here"),
        ("read only", "cannot be written to"),
        ("no python", "or what it is a link to, is not there"),
        ("ImportError: libx\nbroken python", "does not work: ImportError: libx. Remove .venv"),
    ],
)
def test_a_folder_that_nodes_do_not_see(check, word, sentence):
    (problem,) = check(srun=f"on n7\n{word}\n").problems
    assert problem.startswith("on node n7 of partition batch, ")
    assert sentence in problem


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (Answer(1, error="srun: error: Unable to allocate resources: x"), "no node was free"),
        (Answer(None), "no node was free"),
        (Answer(1, error="srun: error: GPUs must be asked for"), "srun said: GPUs must be asked"),
    ],
)
def test_a_check_that_is_not_possible_is_a_warning(check, answer, sentence):
    found = check(srun=answer)
    assert found.problems == []
    assert sentence in found.warnings[0]


def test_jobs_that_an_earlier_run_left(check, tmp_path, monkeypatch):
    lines = (
        f"61|RUNNING|{tmp_path}|rule_train_wildcards_mixgrpo_0|3e1c\n"
        f"62|PENDING|{tmp_path}|rule_score_wildcards_flash_0|3e1c\n"
        "63|RUNNING|/elsewhere|rule_train_wildcards_mixgrpo_0|9a9a\n"
        f"64|RUNNING|{tmp_path}|(null)|bash\n"
    )
    (warning,) = check(squeue=lines).warnings
    assert "61 (rule train, mixgrpo_0, RUNNING); 62 (rule score, flash_0, PENDING)." in warning
    assert "scancel 61 62" in warning
    assert "63" not in warning
    monkeypatch.setattr(module, "workflows", lambda: ["one"])
    (warning,) = check(squeue=lines).warnings
    assert warning.startswith("another run is at work in this folder")


def test_the_stage_says_everything_at_once(monkeypatch, capsys):
    found = Findings(problems=["one.", "two."], warnings=["three."], notes=["four"])
    monkeypatch.setattr(check_cluster, "preflight", lambda *_: found)
    with pytest.raises(UserError, match="2 problems; nothing was submitted") as error:
        check_cluster.run(profile=Path("x"), preset="smoke", seeds="", tables="")
    assert str(error.value).splitlines()[1:4] == ["- one.", "- two.", "warning: three."]
    assert capsys.readouterr().out == ""
    found.problems.clear()
    check_cluster.run(profile=Path("x"), preset="smoke", seeds="", tables="")
    assert capsys.readouterr().out == "four\nwarning: three.\n"


def test_what_is_submitted_is_what_snakemake_plans_with_the_profile(tmp_path, monkeypatch):
    """Its own dry run, so that a profile means here what it will mean there."""
    copy = Checkout(tmp_path)
    overrides = (
        "set-threads: {train: 64}\nset-resources:\n  train: {runtime: 2h, mem_mb: 7000, "
        "slurm_partition: \"'gpu'\"}\n"
    )
    profile = read_profile(write_profile(copy.root, PROFILE + overrides))
    monkeypatch.chdir(copy.root)
    needs = needs_of(planned("smoke", seeds="2", tables="1")(profile))
    assert {need.rule for need in needs} <= {*SUBMITTED}
    (train,) = [need for need in needs if need.rule == "train"]
    assert needs[train] == 12
    assert (train.cpus, train.mem_mb, train.runtime, train.partition) == (64, 7000, 120, "gpu")
    assert train.warned == 900
    (other,) = {need.partition for need in needs if need.rule != "train"}
    assert other == "batch"
