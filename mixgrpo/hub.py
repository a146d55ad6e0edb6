"""Files and folders of the Hugging Face hub at pinned commits, and in plain words why one cannot be had.

What is in the local cache is used without asking the hub, so that a machine without network, or the many processes
of one run, need none.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixgrpo.errors import UserError

UNUSED = ("*.fp16.*", "*.fp16-*", "*.bin", "*.msgpack", "*.h5")
"""Files of a folder that hold its weights once more, in another form."""


@dataclass(frozen=True)
class HubFile:
    """One file of a Hugging Face repository at one commit."""

    repo: str
    revision: str
    name: str
    sha256: str | None = None

    def __str__(self) -> str:
        return f"{self.name} of {self.repo}@{self.revision}"

    @property
    def command(self) -> str:
        """What to type to get the file without this package."""
        return (
            f"`hf download {self.repo} {self.name} --revision {self.revision} "
            "--local-dir DIRECTORY`"
        )


@dataclass(frozen=True)
class HubFolder:
    """Some folders of a Hugging Face repository at one commit."""

    repo: str
    revision: str
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}"

    @property
    def patterns(self) -> list[str]:
        """Of the files wanted, as the hub's client takes them."""
        return ["model_index.json", *(f"{part}/*" for part in self.parts)]

    @property
    def command(self) -> str:
        """What to type to get the folders without this package."""
        wanted = " ".join(f"--include '{pattern}'" for pattern in self.patterns)
        return (
            f"`hf download {self.repo} --revision {self.revision} {wanted} --local-dir DIRECTORY`"
        )


def fetch_file(hub: HubFile, *, who: str) -> Path:
    """The file in the local cache, downloaded if it is not there. UserError says why it cannot be had.

    who: what needs it, such as "reward hps_v2_1", for the message.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub.repo, hub.name, revision=hub.revision))
    except Exception as error:
        raise _cannot_be_had(hub, error, who) from None


def fetch_folder(hub: HubFolder, *, who: str, missing: Callable[[Path], Sequence[str]]) -> Path:
    """The folders in the local cache; what is not there is downloaded. UserError says why it cannot be had.

    missing: the files that a folder lacks. A download that was cut off leaves some out, never half a file.
    """
    from huggingface_hub import snapshot_download

    def snapshot(*, local: bool) -> Path:
        return Path(
            snapshot_download(
                hub.repo,
                revision=hub.revision,
                allow_patterns=hub.patterns,
                ignore_patterns=list(UNUSED),
                local_files_only=local,
            )
        )

    try:
        folder = snapshot(local=True)
        if not missing(folder):
            return folder
    except Exception:
        pass  # not in the cache, or not all of it
    try:
        folder = snapshot(local=False)
    except Exception as error:
        raise _cannot_be_had(hub, error, who) from None
    if lacking := missing(folder):
        raise UserError(
            f"{who}: {hub} is not whole after its download: {', '.join(lacking[:3])} "
            f"{'is' if len(lacking) == 1 else 'are'} missing in {folder}. Run it again with a network: the download "
            "goes on where it was cut off. If it stays so, the repository has another layout than was wanted."
        )
    return folder


def _cannot_be_had(hub: HubFile | HubFolder, error: Exception, who: str) -> UserError:
    causes = list(_chain(error))
    cause = next((c for c in causes if _status(c) is not None), causes[-1])
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    said = f"{type(cause).__name__}: {lines[0] if lines else 'no further words'}"
    return UserError(
        f"{who}: {hub} is not in the local cache and cannot be downloaded ({said}). "
        f"{_advice(causes, hub)} {hub.command}, then give `path`."
    )


def _advice(causes: Sequence[BaseException], hub: HubFile | HubFolder) -> str:
    from huggingface_hub import get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def one(kind: type[BaseException]) -> bool:
        return any(isinstance(cause, kind) for cause in causes)

    page = f"https://huggingface.co/{hub.repo}"
    elsewhere = "fetch it where there is a network:"
    if one(OfflineModeIsEnabled) or (os.environ.get("HF_HUB_OFFLINE") and not one(GatedRepoError)):
        return f"HF_HUB_OFFLINE is set: unset it, or {elsewhere}"
    statuses = [_status(cause) for cause in causes]
    if one(GatedRepoError):
        return (
            f"The repository is gated: accept its licence at {page} and set HF_TOKEN to a token of the account that "
            f"accepted it, which may read gated repositories (or log in with `hf auth login`); or {elsewhere}"
        )
    if 401 in statuses and get_token():
        return (
            "The hub does not know the token: it is mistyped, expired or revoked. Make one at "
            f"https://huggingface.co/settings/tokens and set HF_TOKEN to it; or {elsewhere}"
        )
    if one(RevisionNotFoundError):
        return f"The repository has no commit {hub.revision}: correct the revision, or"
    if one(RepositoryNotFoundError):
        return (
            f"There is no {page}, or it is private: correct its name, or set HF_TOKEN to a token of an account that "
            f"may read it; or {elsewhere}"
        )
    if 403 in statuses:
        return f"The token in HF_TOKEN may not read {page}: give it the right to; or {elsewhere}"
    if any(isinstance(cause, OSError) and cause.errno == 28 for cause in causes):
        return "The disk is full: free some space, or set HF_HOME to a larger one; or"
    return (
        "Check network and HF_TOKEN and run it again: the download goes on where it was cut off; or "
        f"{elsewhere}"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)
