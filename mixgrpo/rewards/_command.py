"""Rewards as a command line names them: --reward a,b --path a=PATH --option b.key=value."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mixgrpo.errors import UserError
from mixgrpo.rewards import module_of, option_kinds


@dataclass(frozen=True)
class Asked:
    """What a command says of one reward."""

    path: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def rewards_asked(
    names: str, paths: Sequence[str] = (), options: Sequence[str] = ()
) -> dict[str, Asked]:
    """By name, in the order of `names` ("a,b"). UserError for an unknown name, path or option.

    >>> rewards_asked("sharpness, unified_reward", options=["unified_reward.tries=2"])["unified_reward"]
    Asked(path=None, options={'tries': 2})
    """
    wanted = list(dict.fromkeys(name for name in names.replace(",", " ").split()))
    if not wanted:
        raise UserError("--reward is empty, wanted names such as hps_v2_1,pick_score.")
    kinds = {name: option_kinds(module_of(name).load) for name in wanted}
    path_of: dict[str, str] = {}
    for entry in paths:
        name, _, path = entry.partition("=")
        if name not in kinds or not path:
            raise UserError(f"--path {entry}: wanted NAME=PATH, NAME of {', '.join(wanted)}.")
        path_of[name] = path
    options_of: dict[str, dict[str, Any]] = {name: {} for name in wanted}
    for entry in options:
        key, _, value = entry.partition("=")
        name, _, option = key.partition(".")
        if name not in kinds or option not in kinds[name] or not value:
            there_are = ", ".join(f"{n}.{o}" for n in wanted for o in kinds[n]) or "none"
            raise UserError(f"--option {entry}: wanted NAME.OPTION=VALUE. There are: {there_are}.")
        options_of[name][option] = _value(entry, value, kinds[name][option])
    return {name: Asked(path_of.get(name), options_of[name]) for name in wanted}


def _value(entry: str, text: str, kind: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(text)
    except ValidationError:
        raise UserError(
            f"--option {entry}: {text!r} is no {getattr(kind, '__name__', kind)}."
        ) from None
