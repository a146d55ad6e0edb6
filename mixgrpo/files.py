"""Files that are either whole or absent: atomic writes, fingerprints."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from mixgrpo.errors import UserError

HASH_WHOLE_FILE_BELOW = 64 * 2**20


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` only when the block ends well.

    UserError when the disk refuses (full, read-only): what stood at `path` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: could not be written ({error}). The version before it is untouched. "
            "Free some space or fix the permissions, and rerun: work goes on from there."
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text)


def write_with(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a file, atomically at `path`."""
    with atomic(path) as temporary:
        try:
            save(temporary)
        except (RuntimeError, SafetensorError) as error:  # how torch and safetensors report it
            raise OSError(str(error).splitlines()[0]) from None


def fingerprint(path: Path) -> str:
    """Changes when the content of the file, or of any file below the directory, changes.

    Files over 64 MiB count by size and modification time: hashing 24 GB takes minutes.
    """
    if not path.exists():
        raise UserError(
            f"{path} does not exist. The workflow makes it; run it from the repository root."
        )
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        stat = file.stat()
        digest.update(str(file.relative_to(path) if file != path else "").encode())
        if stat.st_size < HASH_WHOLE_FILE_BELOW:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        else:
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]
