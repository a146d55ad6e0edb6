"""The paper's prompts, as their authors published them: HPDv2 (section 4.1) and Pick-a-Pic v1 (Tables 11 to 14).

Plain text, a prompt on each line, from a pinned commit; a file is taken only when its git blob id is the one
written here. Downloads are kept, so that a second run needs no network; a local copy serves as well (`files` of a
preset's dataset).
"""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixgrpo.errors import UserError
from mixgrpo.files import atomic

HOST = "https://raw.githubusercontent.com"
TIMEOUT = 60
"""Seconds without an answer."""


@dataclass(frozen=True)
class PublishedFile:
    """One text file of one commit."""

    repository: str
    commit: str
    path: str
    blob: str
    """Its git blob id: SHA-1 of "blob {size}", a zero byte and the content."""
    styles: tuple[str, ...] = ("plain",)
    """Of equal parts of the file, from the first line on."""

    @property
    def url(self) -> str:
        """Where it is fetched."""
        return f"{HOST}/{self.repository}/{self.commit}/{self.path}"


MIXGRPO = ("Tencent-Hunyuan/MixGRPO", "e5cdd6a427778d8c8b2e7a48ce16972141adbe7c")
FLOW_GRPO = ("yifan123/flow_grpo", "ac4c86e8cae021841f1fde853d340e0db67690dd")
HPDV2_STYLES = ("animation", "concept-art", "painting", "photo")

PUBLISHED = {
    ("hpdv2", "train"): PublishedFile(
        *MIXGRPO, "data/prompts.txt", "b47234e475645222ca9a0bb7742ebf4d08123855"
    ),
    ("hpdv2", "test"): PublishedFile(
        *MIXGRPO, "data/prompts_test.txt", "69323d42374806447d4768a257f376a7db683e07", HPDV2_STYLES
    ),
    ("pick_a_pic", "train"): PublishedFile(
        *FLOW_GRPO, "dataset/pickscore/train.txt", "a437bd921c03fbc00c4e7ce148ae2d28fcd6e49b"
    ),
    ("pick_a_pic", "test"): PublishedFile(
        *FLOW_GRPO, "dataset/pickscore/test.txt", "45f05231b969fb5f74c8debd606b22cd3be27f8e"
    ),
}
"""By dataset and split: 103,700 and 400 prompts of HPDv2, 25,432 and 2,048 of Pick-a-Pic v1."""


def published_lines(file: PublishedFile, copy: Path | None = None) -> list[tuple[str, str]]:
    """(line, style) of every line of the file, fetched if it is not kept yet. UserError says what is in the way.

    copy: a local file to take instead of the download.
    """
    if copy is not None:
        return with_styles(copy.read_bytes().decode().splitlines(), file.styles)
    kept = cache_directory() / f"{file.blob}.txt"
    if not kept.exists():
        content = fetch(file.url)
        if (found := blob_id(content)) != file.blob:
            raise UserError(
                f"{file.url}: got another file than was pinned (git blob {found}, wanted {file.blob}); nothing was "
                "kept. Try again: the download may have been cut off or changed on its way."
            )
        with atomic(kept) as temporary:
            temporary.write_bytes(content)
    if blob_id(content := kept.read_bytes()) != file.blob:
        raise UserError(f"{kept} is damaged. Delete it and rerun: it is fetched again.")
    return with_styles(content.decode().splitlines(), file.styles)


def is_copy_of(path: Path, file: PublishedFile | None) -> bool:
    """Whether `path` holds what was published."""
    return file is not None and path.is_file() and blob_id(path.read_bytes()) == file.blob


def with_styles(lines: Sequence[str], styles: Sequence[str]) -> list[tuple[str, str]]:
    """Each line with the style of its part.

    >>> with_styles(["a", "b", "c", "d"], ["photo", "painting"])
    [('a', 'photo'), ('b', 'photo'), ('c', 'painting'), ('d', 'painting')]
    """
    return [(line, styles[i * len(styles) // len(lines)]) for i, line in enumerate(lines)]


def spread_choice(texts: Sequence[str], num: int, *, from_end: bool = False) -> list[int]:
    """Indices of `num` of `texts`, in their order: the same for every run, and part of any larger choice.

    As good as random (by digest), so that a part of a file that is sorted by style has all styles. from_end: the
    last ones by digest in place of the first.

    >>> spread_choice(["a", "b", "c", "d"], 2), spread_choice(["a", "b", "c", "d"], 2, from_end=True)
    ([2, 3], [0, 1])
    """
    order = sorted(range(len(texts)), key=lambda i: hashlib.sha256(texts[i].encode()).digest())
    return sorted(order[len(order) - num :] if from_end else order[:num])


def fetch(url: str) -> bytes:
    """The content of `url`. UserError names the remedy without a network."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            return answer.read()
    except (OSError, urllib.error.URLError) as error:
        raise UserError(
            f"{url} cannot be fetched ({error}). On a machine without network, copy the file there and name it in the "
            "preset: `files: {train: path/to/file.txt, ...}` of the dataset."
        ) from None


def blob_id(content: bytes) -> str:
    """What `git hash-object` prints.

    >>> blob_id(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def cache_directory() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/mixgrpo, else ~/.cache/mixgrpo."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "mixgrpo" / "prompts"
