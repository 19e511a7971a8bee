"""JSON read back into dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints


def typed(kind: Any, value: Any) -> Any:
    """`value`, as JSON has it, turned into a `kind`: a dataclass, or what the fields of dataclasses may be.

    Those are tuples, `Mapping[str, ...]`, `Literal`s, `... | None`, str, int, float and bool. Raises ValueError,
    KeyError or TypeError on what is not one.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = get_type_hints(kind)
        items = _a(dict, value)
        if unknown := items.keys() - kinds:
            raise ValueError(f"{kind.__name__} has no {min(unknown)}: of another version of condic?")
        return kind(**{name: typed(kinds[name], item) for name, item in items.items()})
    if origin is tuple and arguments[-1] is Ellipsis:
        return tuple(typed(arguments[0], item) for item in _a(list, value))
    if origin is tuple:
        return tuple(typed(*pair) for pair in zip(arguments, _a(list, value), strict=True))
    if origin is Mapping:
        return {name: typed(arguments[1], item) for name, item in _a(dict, value).items()}
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{value!r} is none of {', '.join(arguments)}")
        return value
    if type(None) in arguments:
        return None if value is None else typed(arguments[0], value)
    return float(value) if kind is float and type(value) is int else _a(kind, value)


def _a(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    return value
