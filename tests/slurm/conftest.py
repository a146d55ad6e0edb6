"""One cluster for all tests, as it was before each; what went wrong is shown whole."""

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.slurm.experiment import Experiment
from tests.slurm.run import Run


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Eight nodes of two GPUs. In a folder with a short name: that of a socket has 108 characters at most."""
    if reason := missing():
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        Cluster(Path(folder) / "cluster", nodes=8, mem_mb=32_000) as cluster,
    ):
        yield cluster
        kill_all()


def kill_all() -> None:
    """Every Snakemake that still runs."""
    while Run.alive:
        Run.alive.pop().kill()


@pytest.fixture(scope="session")
def finished(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`make slurm`, from nothing to the page of all tables. Only to be copied."""
    run = Run(Experiment(tmp_path_factory.mktemp("finished") / "checkout", cluster))
    run.end()
    return run


@pytest.fixture
def experiment(finished: Run, tmp_path: Path) -> Experiment:
    """A copy of it, to be changed."""
    return finished.experiment.copy(tmp_path / "checkout")


@pytest.fixture(autouse=True)
def clean(cluster: Cluster) -> Iterator[None]:
    """No test leaves a Snakemake, a job or a node that is down."""
    yield
    kill_all()
    cluster.scancel_all()
    cluster.revive_nodes()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure comes with the logs of all that ran."""
    report = yield
    if report.failed:
        report.sections += [("Snakemake", run.story()) for run in Run.alive]
        cluster = getattr(item, "funcargs", {}).get("cluster")
        if cluster is not None:
            report.sections.append(("Slurm", cluster.last_words()))
    return report
