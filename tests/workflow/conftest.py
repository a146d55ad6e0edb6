"""Checkouts to try edits on."""

import shutil
from collections.abc import Iterator

import pytest

from tests.workflow.checkout import Checkout


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """All results of preset smoke look finished."""
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    checkout.pretend_finished()
    for name in ("config", "mixgrpo"):
        shutil.copytree(checkout.root / name, checkout.root / "untouched" / name)
    return checkout


@pytest.fixture
def checkout(finished: Checkout) -> Iterator[Checkout]:
    """`finished`, whose files are put back afterwards; its results are not to be changed."""
    yield finished
    for name in ("config", "mixgrpo"):
        shutil.rmtree(finished.root / name)
        shutil.copytree(finished.root / "untouched" / name, finished.root / name)


@pytest.fixture
def own_checkout(finished: Checkout, tmp_path) -> Checkout:
    """A copy of `finished` whose results may be changed."""
    own = Checkout.__new__(Checkout)
    own.root = tmp_path / "checkout"
    shutil.copytree(finished.root, own.root)
    return own
