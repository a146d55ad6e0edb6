"""What Slurm writes is read, in all the forms that it has."""

import doctest

import pytest

from mixgrpo.cluster import commands, inventory, site
from mixgrpo.cluster.inventory import read_config, read_partitions
from tests.cluster.fakes import CONFIG, LARGE, SINFO


@pytest.mark.parametrize("module", [inventory, commands, site])
def test_examples(module):
    assert doctest.testmod(module).failed == 0
    assert doctest.testmod(module).attempted > 0


def test_partitions_of_a_small_cluster():
    found = read_partitions(SINFO)
    assert list(found) == ["batch", "scav"]
    assert found["batch"].is_default
    assert not found["scav"].is_default
    assert str(found["batch"]) == (
        "partition batch: 2 nodes of 4 CPUs, 4000 MB, gpu:h100:2; time limit infinite"
    )


def test_partitions_with_nodes_of_several_kinds_and_states():
    found = read_partitions(LARGE)
    assert found["gpu"].max_minutes == 24 * 60
    assert [nodes.is_usable for nodes in found["gpu"].nodes] == [True, False]
    assert str(found["gpu"]).startswith("partition gpu: 4 nodes of 96 CPUs, 515000 MB, gpu:h100:4;")
    assert found["cpu"].nodes[0].mem_mb == 257000
    assert found["cpu"].models == []
    assert found["mixed"].models == ["", "a100"]
    assert found["mixed"].nodes[0].num_gpus("A100") == 8
    assert found["mixed"].nodes[1].num_gpus("a100") == 0
    assert found["mixed"].nodes[1].is_usable  # powered down, and up again when asked for
    assert found["maint"].state == "drain"
    assert found["empty"].nodes == ()


def test_settings_of_the_cluster():
    config = read_config(CONFIG)
    assert config["MinJobAge"] == "300 sec"
    assert config["SLURM_VERSION"] == "22.05.8"
