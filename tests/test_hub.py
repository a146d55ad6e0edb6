"""Downloads from a hub: the parts asked for at the commit asked for, and every failure with what to do.

By the hub's own client, against a server on this machine that answers as huggingface.co does.
"""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from mixgrpo import hub
from mixgrpo.errors import UserError
from mixgrpo.hub import HubFile, HubFolder
from tests.fakehub import COMMIT, Hub, connected

FILES = {
    "model_index.json": b"{}",
    "transformer/config.json": b"{}",
    "transformer/model.safetensors": b"t" * 1000,
    "transformer/model.fp16.safetensors": b"h" * 500,
    "text_encoder/model.safetensors": b"e" * 800,
    "whole.safetensors": b"w" * 9000,
}
WANTED = ("model_index.json", "transformer/config.json", "transformer/model.safetensors")
FOLDER = HubFolder("someone/model", COMMIT, ("transformer",))


def missing(folder: Path) -> list[str]:
    return [name for name in WANTED if not (folder / name).is_file()]


def names(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, content in FILES.items():
        (tmp_path / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / name).write_bytes(content)
    with connected(tmp_path / "repo", tmp_path / "cache", monkeypatch) as made:
        yield made


def fetch() -> Path:
    return hub.fetch_folder(FOLDER, who="model flux", missing=missing)


def test_only_the_parts_asked_for_are_fetched_and_once(server: Hub):
    folder = fetch()
    assert names(folder) == set(WANTED)
    assert COMMIT in folder.parts
    asked = len(server.asked)
    assert fetch() == folder
    assert len(server.asked) == asked  # the second time needs no network


def test_one_file(server: Hub):
    file = hub.fetch_file(HubFile("someone/model", COMMIT, "whole.safetensors"), who="reward r")
    assert file.read_bytes() == FILES["whole.safetensors"]


def test_an_interrupted_download_goes_on(server: Hub):
    server.cut = "transformer/model.safetensors"
    with pytest.raises(UserError, match=r"run it again: the download goes on where it was cut off"):
        fetch()
    server.cut = None
    server.asked.clear()
    assert names(fetch()) == set(WANTED)
    assert not any("model_index" in asked for asked in server.asked if asked.startswith("GET"))


def test_a_file_that_the_cache_has_lost_is_fetched_again(server: Hub):
    folder = fetch()
    (folder / "transformer/model.safetensors").unlink()
    assert not missing(fetch())


@pytest.mark.parametrize(
    ("refuse", "token", "said"),
    [
        (
            (401, {"X-Error-Code": "GatedRepo"}),
            None,
            r"GatedRepoError.*gated: accept its licence at https://huggingface.co/someone/model and set HF_TOKEN",
        ),
        ((403, {"X-Error-Code": "GatedRepo"}), "hf_x", r"is gated: accept its licence"),
        (
            (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
            "hf_wrong",
            r"does not know the token.*https://huggingface.co/settings/tokens",
        ),
        ((401, {"X-Error-Code": "RepoNotFound"}), None, r"There is no .*or it is private"),
        ((404, {"X-Error-Code": "RevisionNotFound"}), None, f"has no commit {COMMIT}"),
        ((403, {"X-Error-Message": "no"}), "hf_x", r"The token in HF_TOKEN may not read"),
        ((503, {}), None, r"Check network and HF_TOKEN"),
    ],
)
def test_why_it_is_refused(server: Hub, monkeypatch, refuse, token, said: str):
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    server.refuse = refuse
    with pytest.raises(UserError, match=said) as caught:
        fetch()
    assert str(caught.value).startswith(f"model flux: someone/model@{COMMIT} is not in the local")
    assert (
        f"`hf download someone/model --revision {COMMIT} --include 'model_index.json' --include 'transformer/*'"
        in str(caught.value)
    )
    if token is not None:
        assert token not in str(caught.value)


def test_another_commit_is_refused(server: Hub):
    folder = HubFolder("someone/model", "f" * 40, ("transformer",))
    with pytest.raises(UserError, match=f"has no commit {'f' * 40}: correct the revision"):
        hub.fetch_folder(folder, who="model flux", missing=missing)


def test_a_repository_of_another_layout_is_named(server: Hub):
    shutil.rmtree(server.folder / "transformer")
    with pytest.raises(UserError, match=r"not whole after its download: transformer/config.json"):
        fetch()


def test_without_a_network(server: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"Check network and HF_TOKEN.*fetch it where there is a"):
        fetch()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"HF_HUB_OFFLINE is set: unset it, or fetch it where"):
        fetch()


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch):
    def download(*args: object, **kwargs: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match=r"The disk is full.*set HF_HOME"):
        fetch()
