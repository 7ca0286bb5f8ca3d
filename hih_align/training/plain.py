"""Conversion of plain data (YAML, JSON, keyword arguments) to dataclasses and back. pydantic checks the types."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_type_hints

try:
    import yaml
    from pydantic import TypeAdapter, ValidationError
except ImportError as error:
    raise ImportError(f"recipes need pyyaml and pydantic: pip install 'hih-align[train]' ({error})") from error

T = TypeVar("T")

#: The expected kind of a value, by the first part of pydantic's name for the error.
_EXPECTED = {"int": "an integer", "float": "a number", "bool": "true or false", "string": "text", "tuple": "a list"}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # untyped
    """YAML 1.2: ``1e-4`` is a number, and ``no`` is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.\d+|\d+\.\d*(?:[eE][-+]?\d+)?|\.?\d+[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+.0123456789"),
)


def parse_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        ValueError: the text is not YAML.
    """
    try:
        return yaml.load(text, _Loader)  # safe: the loader is a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def to_plain(value: Any) -> dict[str, Any]:
    """A dataclass as mappings, lists and numbers. `from_plain` reads them back."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(value)))
    return plain


def from_plain(kind: type[T], data: Any, where: str, also: Sequence[str] = ()) -> T:
    """Make a dataclass, or another type that pydantic knows, from plain data.

    Args:
        kind: the type; a dataclass for a mapping.
        data: mappings, lists, numbers and texts.
        where: the name of ``data`` in errors.
        also: further keys that a message about unknown keys names, because a user may write them elsewhere.

    Raises:
        ValueError: a key is unknown or missing, or a value has another type or is out of range; the message names the
            key.
    """
    if is_dataclass(kind):
        _refuse_unknown_keys(kind, data, where, also)
    try:
        adapter = _adapter(kind)  # type: ignore[arg-type]  # any class can be hashed
        found: T = adapter.validate_json(json.dumps(data, default=_number), strict=True)
        return found
    except ValidationError as error:
        raise ValueError(_message(error.errors()[0], where)) from error
    except TypeError as error:
        raise ValueError(f"{where} is not plain data: {error}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """To make one takes much longer than to read a recipe with it."""
    return TypeAdapter(kind)


def _number(value: Any) -> Any:
    """Convert NumPy numbers to Python numbers."""
    if not hasattr(value, "item"):
        raise TypeError(f"it holds a {type(value).__name__}")
    return value.item()


def _refuse_unknown_keys(kind: Any, data: Any, where: str, also: Sequence[str] = ()) -> None:
    """Raise for unknown keys, which pydantic would ignore in a dataclass."""
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} is {data!r}, expected a mapping")
    known = {field.name for field in fields(kind)}
    if unknown := sorted(str(key) for key in data if key not in known):
        raise ValueError(f"{where} has unknown keys {unknown}, expected some of {sorted({*known, *also})}")
    hints = get_type_hints(kind)
    for key, value in data.items():
        inner = hints.get(key)
        if is_dataclass(inner) and isinstance(value, Mapping):
            _refuse_unknown_keys(inner, value, f"{where}.{key}")
        elif isinstance(value, list):
            item = next(iter(getattr(inner, "__args__", ())), None)
            for index, one in enumerate(value):
                if is_dataclass(item):
                    _refuse_unknown_keys(item, one, f"{where}.{key}.{index}")


def _message(error: Any, where: str) -> str:
    """The message of a pydantic error, in the words of this package."""
    parents = ".".join([where, *map(str, error["loc"][:-1])])
    place = ".".join([where, *map(str, error["loc"])])
    kind, value = error["type"], error["input"]
    if kind == "missing":
        return f"{parents} lacks {[error['loc'][-1]]}"
    if kind == "value_error":
        return f"{place}: {error['ctx']['error']}"
    if kind == "literal_error":
        return f"{place} is {value!r}, expected one of {error['ctx']['expected']}"
    expected = next((words for begin, words in _EXPECTED.items() if kind.startswith(begin)), None)
    return f"{place} is {value!r}, expected {expected}" if expected else f"{place} is {value!r}: {error['msg']}"
