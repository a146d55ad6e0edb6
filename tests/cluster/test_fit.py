"""What sbatch calls "not available", or takes and never starts, is one sentence: what, where, what to do."""

import re
from pathlib import Path

import pytest

from mixgrpo.cluster.fit import misfits, waits
from mixgrpo.cluster.inventory import read_partitions
from mixgrpo.cluster.needs import SUBMITTED, contradictions, need_of, needs_of, risks
from tests.cluster.fakes import LARGE, SINFO, job

ROOT = Path(__file__).parents[2]
SMALL, BIG = read_partitions(SINFO), read_partitions(LARGE)


def test_rules_that_are_submitted_are_those_that_are_not_local():
    rules = {}
    for path in ROOT.glob("workflow/rules/*.smk"):
        for block in re.split(r"^rule ", path.read_text(), flags=re.M)[1:]:
            rules[block.partition(":")[0]] = "localrule: True" in block
    assert {name for name, is_local in rules.items() if not is_local} == {*SUBMITTED}


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ({}, (2, 4, 2, 1)),
        ({"gpu": 8}, (2, 8, 4, 1)),
        ({"gpu": None, "gres": "gpu:h100:2"}, (2, 4, 2, 1)),
        ({"gpu": None, "gpu_model": "h100"}, (2, 1, 1, 1)),  # a model alone is one of it
        ({"gpu": 0, "gpu_model": "h100"}, (2, 0, 0, 1)),
        ({"gpu": None, "nodes": None, "mpi": None, "tasks": None}, (1, 0, 0, 1)),
        ({"cpus_per_task": 3, "tasks": 4}, (2, 4, 2, 6)),
        ({"cpus_per_gpu": 5}, (2, 4, 2, 10)),
    ],
)
def test_needs_are_what_the_plugin_makes_of_resources(resources, wanted):
    need = need_of(job(**resources))
    assert (need.nodes, need.gpus, need.gpus_per_node, need.cpus) == wanted


def test_memory_may_be_told_by_cpu_and_is_unknown_in_a_dry_run():
    assert need_of(job(mem_mb_per_cpu=500, cpus_per_task=4)).mem_mb == 2000
    assert need_of(job(mem_mb="<TBD>")).mem_mb == 0


def test_jobs_that_need_the_same_are_counted_together():
    needs = needs_of([job(), job(), job("score"), job("table")])
    assert sorted(needs.values()) == [1, 2]


@pytest.mark.parametrize(
    ("resources", "sentence"),
    [
        ({"slurm_partition": "bacth"}, "'bacth' is not known; did you mean 'batch'?"),
        ({"slurm_partition": "batch,scva"}, "'scva' is not known; did you mean 'scav'?"),
        ({"gpu_model": "v100"}, "gpu_model is v100, and partition batch has h100."),
        ({"gpu": 10}, "5 GPUs are wanted on a node (gpu=10 over nodes=2), and no node of partition batch"),
        ({"mem_mb": 99999}, "mem_mb=99999 is wanted on each node, and no node of partition batch has more than 4000."),
        ({"nodes": 5, "gpu": 5}, "5 nodes are wanted, and partition batch has 2. Slurm would take the job and never"),
        ({"cpus_per_task": 64}, "64 CPUs are wanted on a node, and no node of partition batch has more than 4."),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_small_cluster(resources, sentence):
    (found,) = misfits(need_of(job(**resources)), SMALL)
    assert sentence in found


@pytest.mark.parametrize(
    ("resources", "sentence"),
    [
        ({"slurm_partition": "cpu"}, "partition cpu has none. Partitions with GPUs: gpu, mixed"),
        ({"slurm_partition": None}, "partition cpu has none."),
        ({"slurm_partition": "gpu", "runtime": 2880}, "ends jobs after 1440 (1-00:00:00). Set runtime=1440: training"),
        ({"slurm_partition": "mixed", "gpu_model": "a100", "nodes": 3, "gpu": 3}, "has 2 nodes with all of it at once"),
        ({"slurm_partition": "maint", "gpu": 0, "nodes": 1}, "takes no jobs at present"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_large_one(resources, sentence):
    found = misfits(need_of(job(**resources)), BIG)
    assert any(sentence in text for text in found), found


def test_what_fits():
    assert misfits(need_of(job()), SMALL) == []
    assert misfits(need_of(job(slurm_partition="gpu", gpu=16, nodes=4)), BIG) == []
    assert misfits(need_of(job(slurm_partition="cpu,gpu")), BIG) == []  # one of them is enough
    assert misfits(need_of(job(slurm_partition="mixed", gpu=8, nodes=4)), BIG) == []


def test_everything_that_does_not_fit_is_said():
    found = misfits(need_of(job(mem_mb=99999, nodes=3, gpu=9, cpus_per_task=9)), SMALL)
    assert len(found) == 4


def test_gpus_that_have_no_names():
    partitions = read_partitions("batch*|up|infinite|2|4|4000|gpu:2|idle\n")
    (found,) = misfits(need_of(job(gpu_model="h100")), partitions)
    assert "have no names there. Remove gpu_model" in found


def test_no_partition_named_and_no_default():
    partitions = read_partitions(SINFO.replace("*", ""))
    (found,) = misfits(need_of(job(slurm_partition=None)), partitions)
    assert "names no partition" in found


def test_nodes_out_of_use_are_a_warning():
    need = need_of(job(slurm_partition="gpu", gpu=16, nodes=4))
    assert misfits(need, BIG) == []
    assert "down or drained at present" in waits(need, BIG)[0]
    assert waits(need_of(job(slurm_partition="gpu", gpu=12, nodes=3)), BIG) == []
    closed = read_partitions(SINFO.replace("up", "down"))
    assert waits(need_of(job()), closed)


@pytest.mark.parametrize(
    ("resources", "sentence"),
    [
        ({"gres": "gpu:2"}, "GPUs twice, by gpu=4 and by gres=gpu:2"),
        ({"slurm_extra": "--time=5 --signal=TERM@900"}, "slurm_extra holds --time"),
        ({"slurm_extra": "-p x"}, "slurm_extra holds -p"),
        ({"nodes": 1}, "launch starts 2 processes on each of 2 nodes, but nodes=1 and gpu=4"),
        ({"gpu": 8}, "launch starts 2 processes on each of 2 nodes, but nodes=2 and gpu=8"),
        ({"runtime": 10}, "--signal=...@900 (slurm_extra) is no later than the start"),
    ],
)
def test_needs_that_contradict_themselves(resources, sentence):
    (found,) = contradictions(need_of(job(**resources)))
    assert sentence in found


def test_needs_that_do_not():
    assert contradictions(need_of(job())) == []
    assert contradictions(need_of(job(slurm_extra="--gpus-per-node=2 --signal=TERM@900"))) == []
    assert contradictions(need_of(job(gpu=0))) == []  # processes without GPUs


def test_a_profile_that_takes_away_the_warning_before_the_time_limit():
    assert risks(need_of(job())) == []
    assert "Write it there too" in risks(need_of(job(slurm_extra="--gpus-per-node=2")))[0]
    assert "60 s early" in risks(need_of(job(runtime=16)))[0]
    assert risks(need_of(job("score", slurm_extra=None))) == []
