"""The provider contract's own data as JSON, by their annotations: what is said once in ``contract`` is the wire. Pure.

A dataclass or named tuple is an object, a tuple or frozenset a list, bytes are base64, an enum its value, a mapping whose
keys are no texts a list of pairs, and one of several classes is ``{"Name": …}``. A field that the reader does not know is
left out, one that the writer did not know has its default: two versions of one API understand each other.
"""

import base64
import binascii
import dataclasses
import types
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

Json = Any
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}


def encode(value: object, kind: Any) -> Json:
    """Return a value of a kind (a class or another annotation) as what ``json.dumps`` takes."""
    kind = _bare(kind)
    members = _members(kind)
    if members is not None:
        if value is None:
            return None
        if len(members) == 1:
            return encode(value, members[0])
        return {type(value).__name__: encode(value, type(value))}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if _is_record(kind):
        return {name: encode(getattr(value, name), hint) for name, hint in _hints(kind).items()}
    return _encode_plain(value, kind)


def _encode_plain(value: Any, kind: Any) -> Json:
    origin = get_origin(kind)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        key, item = get_args(kind)
        if _bare(key) is str:
            return {str(name): encode(one, item) for name, one in value.items()}
        return [[encode(name, key), encode(one, item)] for name, one in value.items()]
    if origin is frozenset:
        return sorted(encode(one, get_args(kind)[0]) for one in value)
    if origin is tuple:
        return [encode(one, item) for one, item in zip(value, _items(kind, len(value)), strict=True)]
    return value


def decode(data: Json, kind: Any) -> Any:
    """Return the value of a kind that JSON stands for. Raises ValueError for what is no such value."""
    kind = _bare(kind)
    members = _members(kind)
    if members is not None:
        return _decode_union(data, kind, members)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            raise ValueError(str(error)) from error
    if _is_record(kind):
        if not isinstance(data, dict):
            raise ValueError(f"{kind.__name__} is an object, not {data!r:.80}")
        known = {name: decode(data[name], hint) for name, hint in _hints(kind).items() if name in data}
        try:
            return kind(**known)
        except TypeError as error:
            raise ValueError(f"{kind.__name__}: {error}") from error
    return _decode_plain(data, kind)


def _decode_union(data: Json, kind: Any, members: tuple[Any, ...]) -> Any:
    if data is None and type(None) in get_args(kind):
        return None
    if len(members) == 1:
        return decode(data, members[0])
    by_name = {member.__name__: member for member in members}
    if not isinstance(data, dict) or len(data) != 1 or next(iter(data)) not in by_name:
        raise ValueError(f"expected one of {', '.join(by_name)}, not {data!r:.80}")
    ((name, inner),) = data.items()
    return decode(inner, by_name[name])


def _decode_plain(data: Json, kind: Any) -> Any:
    origin = get_origin(kind)
    if kind is bytes:
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise ValueError(f"not base64: {error}") from error
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(data)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, item = get_args(kind)
        return {decode(name, key): decode(one, item) for name, one in _pairs(data)}
    if origin is frozenset:
        return frozenset(decode(one, get_args(kind)[0]) for one in _list(data))
    if origin is tuple:
        return tuple(decode(one, item) for one, item in zip(_list(data), _items(kind, len(data)), strict=True))
    if origin is Literal and data not in get_args(kind):
        raise ValueError(f"{data!r:.80} is none of {get_args(kind)}")
    if kind in _PLAIN and not (type(data) is kind or (kind is float and type(data) is int)):
        raise ValueError(f"{data!r:.80} is no {_PLAIN[kind]}")
    return data


def schema(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a kind."""
    kind = _bare(kind)
    members = _members(kind)
    if members is not None:
        if len(members) > 1:
            tagged = [_object({member.__name__: schema(member)}, [member.__name__]) for member in members]
            return {"oneOf": tagged}
        return {"anyOf": [schema(members[0]), {"type": "null"}]}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {"type": "object", "description": (kind.__doc__ or "").strip()}
    if _is_record(kind):
        required = [name for name in _hints(kind) if name not in _defaults(kind)]
        return _object({name: schema(hint) for name, hint in _hints(kind).items()}, required)
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is bytes:
        return {"type": "string", "contentEncoding": "base64"}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    if isinstance(origin, type) and issubclass(origin, Mapping) and _bare(arguments[0]) is str:
        return {"type": "object", "additionalProperties": schema(arguments[1])}
    if origin in (tuple, frozenset) and len(set(arguments) - {Ellipsis}) == 1:
        return {"type": "array", "items": schema(arguments[0])}
    return {"type": _PLAIN[kind]} if kind in _PLAIN else {"type": "array"}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _bare(kind: Any) -> Any:
    return _bare(kind.__supertype__) if isinstance(kind, NewType) else kind


def _members(kind: Any) -> tuple[Any, ...] | None:
    """Return the members of a union without None; None if it is no union."""
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(member for member in get_args(kind) if member is not type(None))
    return None


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"))


@lru_cache(maxsize=256)
def _hints(kind: type) -> dict[str, Any]:
    """Return the fields of a record with their annotations; properties are none."""
    hints = get_type_hints(kind)
    fields = getattr(kind, "_fields", None) or [field.name for field in dataclasses.fields(kind)]
    return {name: hints[name] for name in fields}


def _defaults(kind: Any) -> set[str]:
    if hasattr(kind, "_fields"):
        return set(kind._field_defaults)
    nothing = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return {field.name for field in fields if field.default is not nothing or field.default_factory is not nothing}


def _items(kind: Any, count: int) -> tuple[Any, ...]:
    arguments = get_args(kind)
    return (arguments[0],) * count if len(arguments) == 2 and arguments[1] is Ellipsis else arguments


def _pairs(data: Json) -> Iterable[tuple[Json, Json]]:
    if isinstance(data, dict):
        return data.items()
    pairs = [_list(pair) for pair in _list(data)]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{data!r:.80} is no list of pairs")
    return [(pair[0], pair[1]) for pair in pairs]


def _list(data: Json) -> list[Json]:
    if not isinstance(data, list):
        raise ValueError(f"{data!r:.80} is no list")  # noqa: TRY004  what is read is wrong, not what was called
    return data
