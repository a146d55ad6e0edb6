"""Files of weights: what is loaded, and what is said of everything that is not weights."""

import hashlib
import os
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import save_file

from mixgrpo.errors import UserError
from mixgrpo.rewards._checkpoints import (
    HubFile,
    check_keys,
    check_sha256,
    dtype_of,
    load_state_dict,
    locate,
    sha256_of,
)

STATE = {"a.weight": torch.randn(64, 8), "b": torch.arange(3.0)}
HUB = HubFile("someone/model", "0123abcd", "weights.pt", "f" * 64)


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[k], STATE[k]) for k in STATE)


def test_every_wrapping_gives_the_same_tensors(tmp_path: Path):
    wrapped = {"state_dict": {f"module.{k}": v for k, v in STATE.items()}, "epoch": 3}
    torch.save(STATE, tmp_path / "plain.pt")
    torch.save(wrapped, tmp_path / "wrapped.bin")
    torch.save(STATE, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(STATE, tmp_path / "new.safetensors")
    for file in tmp_path.iterdir():
        assert same(load_state_dict("r", file)), file.name


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("is_zip", [True, False])
def test_python_objects_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_zip: bool):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "evil.pt"
    torch.save({"state_dict": STATE, "config": Evil()}, file, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(UserError, match="holds Python objects beside tensors"):
        load_state_dict("r", file)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>Access denied</html>", "is a text that starts with b'<!DOCTYPE"),
        (b'{"error": "Invalid username"}', "is a text that starts with"),
        (b"weights? " * 90, "no file of torch.save"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, said: str):
    file = tmp_path / "weights.pt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=f"reward r: {file}.*{said}"):
        load_state_dict("r", file)


def test_a_truncated_file_is_named(tmp_path: Path):
    whole = tmp_path / "whole.pt"
    torch.save(STATE, whole)
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"cut\.pt is truncated"):
        load_state_dict("r", cut)
    save_file(STATE, tmp_path / "whole.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-40])
    with pytest.raises(UserError, match=r"cut\.safetensors cannot be read \(truncated"):
        load_state_dict("r", cut)


def test_a_flipped_bit_is_found(tmp_path: Path):
    file = tmp_path / "weights.pt"
    torch.save(STATE, file)
    content = bytearray(file.read_bytes())
    place = content.index(STATE["a.weight"].numpy().tobytes()) + 100
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged \(at weights/data/0\)"):
        load_state_dict("r", file)


@pytest.mark.parametrize("data", [{"optimizer": {"lr": 1.0}, "step": 3}, [1, 2], {}])
def test_other_contents_are_named(tmp_path: Path, data: object):
    torch.save(data, tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"wanted tensors by name, alone or under the key"):
        load_state_dict("r", tmp_path / "weights.pt")


def test_sha256_follows_the_file(tmp_path: Path):
    file = tmp_path / "weights.pt"
    for content in (b"one", b"other"):
        file.write_bytes(content)
        assert sha256_of(file) == hashlib.sha256(content).hexdigest()
    with pytest.raises(UserError, match=f"has sha256 d9298a10.*wanted {'f' * 64}.*download it"):
        check_sha256("r", file, HUB)


def test_a_path_is_a_file_or_its_directory(tmp_path: Path):
    file = tmp_path / HUB.name
    file.write_bytes(b"weights")
    for path in (file, tmp_path):
        found = locate("r", str(path), HUB)
        assert found.files == (file,)
        assert found.source == str(file)
        assert found.sha256 == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(UserError, match=r"no file .*nothing\.pt\. Wanted weights\.pt of someone"):
        locate("r", str(tmp_path / "nothing.pt"), HUB)
    file.unlink()
    with pytest.raises(UserError, match=r"no file .*weights\.pt.*hf download someone/model"):
        locate("r", str(tmp_path), HUB)


def test_a_download_is_pinned_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / HUB.name
    file.write_bytes(b"weights")
    asked = []

    def download(repo: str, name: str, *, revision: str) -> str:
        asked.append((repo, name, revision))
        return str(file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=r"sha256 .*wanted ffff.*damaged or another version"):
        locate("r", None, HUB)
    good = HubFile(HUB.repo, HUB.revision, HUB.name, hashlib.sha256(b"weights").hexdigest())
    assert locate("r", None, good).source == "weights.pt of someone/model@0123abcd"
    assert asked == [("someone/model", "weights.pt", "0123abcd")] * 2


def gated() -> GatedRepoError:
    error = GatedRepoError.__new__(GatedRepoError)
    OSError.__init__(error, "403 Client Error: access is restricted")
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (gated(), "is gated: accept its licence.*hf auth login"),
        (OfflineModeIsEnabled("offline mode"), "HF_HUB_OFFLINE is set"),
        (LocalEntryNotFoundError("Cannot find the file"), "Check network and HF_TOKEN"),
        (ConnectionError("Name or service not known"), "Check network and HF_TOKEN"),
    ],
)
def test_why_a_download_failed(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str):
    def download(*args: object, **kwargs: object) -> str:
        raise error

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(UserError, match=f"weights.pt of someone/model@0123abcd.*{said}") as caught:
        locate("r", None, HUB)
    assert "hf download someone/model weights.pt --revision 0123abcd" in str(caught.value)


def test_other_tensors_are_counted_and_named():
    check_keys("r", Path("f"), ["a", "b"], ["b", "a"])
    with pytest.raises(UserError, match=r"1 are missing \(b, \.\.\.\) and 2 are not known \(c, d"):
        check_keys("r", Path("f"), ["a", "c", "d"], ["a", "b"])


def test_an_unknown_dtype_lists_those_there_are():
    assert dtype_of("r", "bfloat16") is torch.bfloat16
    with pytest.raises(UserError, match="'fp16', wanted one of float32, bfloat16, float16"):
        dtype_of("r", "fp16")
