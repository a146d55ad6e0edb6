"""The private cluster itself."""

import tempfile
from pathlib import Path

import psutil
import pytest

from tests.slurm.cluster import Cluster, wait_for

pytestmark = pytest.mark.slurm


def words_of_a_job(cluster: Cluster, folder: Path) -> str:
    """That runs on every node, and looks at the cluster with nothing to tell it which."""
    output = folder / "output.txt"
    nodes = str(len(cluster.nodes))
    command = f"srun -n {nodes} --label env -u SLURM_CONF sinfo --noheader -o '%D nodes'"
    options = ("--parsable", "--nodes", nodes, "--output", str(output), "--wrap", command)
    job = cluster.run("sbatch", *options).strip()
    wait_for(lambda: cluster.job(job).ended, "the job has ended")
    return output.read_text()


def test_two_side_by_side_do_not_know_of_each_other(cluster, tmp_path):
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        with Cluster(Path(folder) / "cluster", nodes=2) as other:
            known = {job.id for job in cluster.jobs()}
            assert sorted(words_of_a_job(other, tmp_path).split("\n")[:2]) == [
                "0: 2 nodes",
                "1: 2 nodes",
            ]
            assert [job.state for job in other.jobs()] == ["COMPLETED"]
            assert {job.id for job in cluster.jobs()} == known
            daemons = [daemon.pid for daemon in other.daemons.values()]
        assert not any(map(psutil.pid_exists, daemons))
    assert cluster.all_idle()
