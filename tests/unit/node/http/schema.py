"""As much of JSON Schema as msgspec writes: whether a value is what a schema says, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def mistakes(value: Any, schema: Any, schemas: Any, place: str = "$") -> Iterator[str]:
    """What is not as the schema says. A member of an object that the schema does not name is a mistake, too."""
    if "$ref" in schema:
        yield from mistakes(value, schemas[schema["$ref"].rpartition("/")[2]], schemas, place)
        return
    if "anyOf" in schema:
        if all(list(mistakes(value, each, schemas, place)) for each in schema["anyOf"]):
            yield f"{place}: {value!r} is none of its kinds"
        return
    kinds = schema.get("type", [])
    wanted = [kinds] if isinstance(kinds, str) else kinds
    is_kind = any(isinstance(value, _TYPES[kind]) for kind in wanted)
    if wanted and (not is_kind or (isinstance(value, bool) and "boolean" not in wanted)):
        yield f"{place}: {value!r} is no {kinds}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r} is none of {schema['enum']}"
    if isinstance(value, list):
        for at, each in enumerate(value):
            yield from mistakes(each, schema.get("items", {}), schemas, f"{place}[{at}]")
    if isinstance(value, dict):
        yield from _members(value, schema, schemas, place)


def _members(value: Any, schema: Any, schemas: Any, place: str) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{place}: has no {name}"
    for name, each in value.items():
        if name in known:
            yield from mistakes(each, known[name], schemas, f"{place}.{name}")
        elif isinstance(schema.get("additionalProperties"), dict):
            yield from mistakes(each, schema["additionalProperties"], schemas, f"{place}.{name}")
        elif known:
            yield f"{place}: has {name}, of which the schema does not know"
