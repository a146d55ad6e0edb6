"""Reads a person's YAML strictly: every mistake is found, with its file, key, value and remedy.

Torch-free, because the workflow imports it to plan.
"""

import difflib
import json
import re
import types
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from mixgrpo.errors import UserError

T = TypeVar("T")
FLOAT = re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
"""What YAML 1.1 takes for a string: 1e-5, 1.e5."""


@dataclass(frozen=True)
class Problem:
    """One mistake: the key it stands at, dotted, and what to do about it."""

    key: str
    message: str


@dataclass(frozen=True)
class Checked(Generic[T]):
    """A value, or why there is none."""

    value: T | None
    problems: list[Problem]


def check(kind: type[T], data: Any) -> Checked[T]:
    """`data` as the frozen dataclass `kind`, or all that is wrong with it; nothing is converted or guessed."""
    wanted: Any = kind
    try:
        return Checked(adapter(wanted).validate_json(json.dumps(data, default=str)), [])
    except ValidationError as error:
        return Checked(None, [explain(kind, problem) for problem in error.errors()])


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """What reads a `kind`; made once, for making it is slow."""
    return TypeAdapter(kind)


def explain(kind: type, problem: Any) -> Problem:
    """One of pydantic's findings in our words."""
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "unexpected_keyword_argument":
        return Problem(key, unknown_key(problem["loc"][-1], keys_at(kind, problem["loc"][:-1])))
    if problem["type"] == "missing":
        return Problem(key, "missing.")
    if problem["type"] == "value_error":
        return Problem(key, str(problem["msg"]).removeprefix("Value error, "))
    return Problem(key, f"got {problem['input']!r}. {problem['msg']}.")


def unknown(name: object, names: Iterable[str]) -> str:
    """What to say of a name that is not among `names`.

    >>> unknown("mixgpro", ["mixgrpo", "flash"])
    "'mixgpro' is not known; did you mean 'mixgrpo'? There are: flash, mixgrpo."
    """
    known = sorted(names)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{str(name)!r} is not known{hint} There are: {', '.join(known)}."


def unknown_key(name: object, names: Iterable[str]) -> str:
    """What to say of a key that stands where only `names` may."""
    return f"unknown key. {unknown(name, names)}"


@cache
def type_at(kind: Any, location: tuple[str | int, ...]) -> Any:
    """Type of what `location` leads to inside `kind`."""
    for part in location:
        kind = not_null(kind)
        if is_dataclass(kind):
            kind = get_type_hints(kind)[str(part)]
        else:
            kind = get_args(kind)[-1 if get_origin(kind) is dict else 0]
    return kind


def not_null(kind: Any) -> Any:
    """The dataclass in `a dataclass | None`; any other type as it is."""
    if get_origin(kind) in (Union, types.UnionType):
        return next((inner for inner in get_args(kind) if is_dataclass(inner)), kind)
    return kind


@cache
def keys_at(kind: Any, location: tuple[str | int, ...]) -> list[str]:
    """Field names of the dataclass that `location` leads to inside `kind`."""
    found = not_null(type_at(kind, location))
    return [field.name for field in fields(found)] if is_dataclass(found) else []


def may_be_null(kind: Any, location: tuple[str | int, ...]) -> bool:
    """Whether null may stand there."""
    return type(None) in get_args(type_at(kind, location))


FAST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StrictLoader(FAST):
    """YAML in which 1e-5 is a number and a key that stands twice is a mistake."""

    def __init__(self, stream: Any):
        super().__init__(stream)
        self.problems: list[Problem] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As PyYAML does, noting keys that stand twice."""
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                continue
            if key in lines:
                message = f"stands twice, in lines {lines[key]} and {line}. Keep one of them."
                self.problems.append(Problem(str(key), message))
            lines[key] = line
        return super().construct_mapping(node, deep=deep)


StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789"))


def read_yaml(path: Path) -> Checked[dict[str, Any]]:
    """The mapping in a YAML file; a missing or empty one has no value."""
    try:
        loader = StrictLoader(path.read_text())
        data = loader.get_single_data()
    except (FileNotFoundError, IsADirectoryError):
        return Checked(None, [Problem("", "there is no such file.")])
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return Checked(None, [Problem("", f"not YAML: {' '.join(str(error).split())}.")])
    if not isinstance(data, Mapping):
        return Checked(None, [Problem("", f"got {data!r}, wanted `key: value` lines.")])
    return Checked(dict(data), loader.problems)


class Findings:
    """Mistakes found so far, each said once, with the places that it shows in."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, file: str, key: str, message: str, *, seen_in: str | None = None) -> None:
        """One mistake. `seen_in`: a name that inherits it, listed after the message."""
        stem = key.rpartition(".")[2]
        said = not key or message.startswith((f"{stem}.", f"{key}.", f"{key}="))
        places = self.found.setdefault(f"{file}: {message if said else f'{key}: {message}'}", [])
        if seen_in is not None and seen_in not in places:
            places.append(seen_in)

    def read(self, path: Path, name: str) -> dict[str, Any]:
        """The mapping in a YAML file, called `name` in messages; empty when it cannot be read."""
        checked = read_yaml(path)
        for problem in checked.problems:
            self.add(name, problem.key, problem.message)
        return checked.value or {}

    def mapping(self, value: Any, file: str, key: str) -> Mapping[str, Any]:
        """`value`, which must be a block of keys; an empty one when it is none."""
        if isinstance(value, Mapping):
            return value
        self.add(file, key, f"got {value!r}, wanted a block of keys.")
        return {}

    def sheet(
        self, kind: type[T], data: Any, file: str | Callable[[str], str], prefix: str = ""
    ) -> T | None:
        """`data` as `kind`, or None and what is wrong with it.

        file: where it stands, or which file says a dotted key. prefix: its block there.
        """
        checked = check(kind, data)
        for problem in checked.problems:
            key = f"{prefix}{problem.key}".rstrip(".")
            self.add(file if isinstance(file, str) else file(key), key, problem.message)
        return checked.value

    def raise_if_any(self) -> None:
        """UserError with all of them."""
        if self.found:
            lines = [
                f"  {line} (in {', '.join(places)})" if places else f"  {line}"
                for line, places in self.found.items()
            ]
            count = len(lines)
            head = f"the configuration has {count} mistake{'s' if count > 1 else ''}:"
            raise UserError("\n".join([head, *lines]))
