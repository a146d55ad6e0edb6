"""JSON that other stages wrote, read as dataclasses and checked key by key."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mixgrpo.errors import UserError

LENIENT = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
"""For files that hold more than a report needs."""

BASE_SEED = 0
"""The folder `seed0` is the only one that the base has."""

Record = TypeVar("Record")


def read_json(path: Path, kind: type[Record], *, remedy: str) -> Record:
    """The file as `kind`, a dataclass. UserError names the file, every bad key, and `remedy`."""
    return parse_json(read_text(path, remedy=remedy), kind, where=str(path), remedy=remedy)


def read_text(path: Path, *, remedy: str) -> str:
    """The text of a file, which must be there."""
    try:
        return path.read_text()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. {remedy}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text ({error}). Delete it; {remedy}.") from None


def parse_json(text: str, kind: type[Record], *, where: str, remedy: str) -> Record:
    """JSON `text` as `kind`; `where` it stands is named in errors."""
    try:
        json.loads(text)
        return TypeAdapter(kind).validate_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error}). Delete it; {remedy}.") from None
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise UserError("\n".join([f"{where}: does not hold:", *problems, f"{remedy}."])) from None


def _explain(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"])) or "it"
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"  {key}: {message} (got {repr(problem['input'])[:80]})."
