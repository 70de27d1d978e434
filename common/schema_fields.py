"""A message's fields as a flat list, read from its JSON Schema: path, type, range, and what it means. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from common.messages import Message

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message.

    Attributes:
        path: as in ``faces[].identity.name``.
        type: in a word or two.
        range: what values it may have; empty if any.
        what: its description, with the unit.
    """

    path: str
    type: str
    range: str
    what: str


def fields(kind: type[Message]) -> list[Field]:
    """Return all fields of a kind of message, those of the parts of it, too; messages inside others by name only."""
    schema = kind.model_json_schema(by_alias=True)
    return _of(schema, schema.get("$defs", {}), "")


def _of(schema: Schema, parts: dict[str, Schema], path: str) -> list[Field]:
    found: list[Field] = []
    for name, own in schema.get("properties", {}).items():
        here, what = path + name, str(own.get("description", ""))
        value, nullable = _without_null(own)
        inner = value.get("items", {}) if value.get("type") == "array" and "prefixItems" not in value else value
        part = parts.get(str(inner.get("$ref", "")).rpartition("/")[2])
        or_null = " or null" if nullable else ""
        if part is None:
            found.append(Field(here, _type(value) + or_null, _range(value), what))
        elif "v" in part["properties"]:
            found.append(Field(here, f"a message of `{part['title'].lower()}s`" + or_null, "", what))
        else:
            listed = inner is not value
            said = what or " ".join(str(part.get("description", "")).replace("``", "`").split())
            found.append(Field(here, ("list of maps" if listed else "map") + or_null, _range(value), said))
            found += _of(part, parts, f"{here}[]." if listed else f"{here}.")
    return found


def _without_null(schema: Schema) -> tuple[Schema, bool]:
    options = [one for one in schema.get("anyOf", []) if one.get("type") != "null"]
    if len(options) == 1:
        return options[0], len(schema["anyOf"]) > 1
    return schema, len(options) < len(schema.get("anyOf", []))


def _type(schema: Schema) -> str:
    if "prefixItems" in schema:
        inner = {_type(one) for one in schema["prefixItems"]}
        return f"{len(schema['prefixItems'])} × {' or '.join(sorted(inner))}"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"] if one.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    if schema.get("type") == "object":
        return f"map of {_type(schema.get('additionalProperties', {}))}"
    return str(schema.get("type", "anything"))


def _range(schema: Schema) -> str:
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if isinstance(schema.get("additionalProperties"), dict) and "anyOf" not in schema["additionalProperties"]:
        return _range(schema["additionalProperties"])
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None or high is not None:
        return f"{low if low is not None else '…'} to {high}" if high is not None else f"from {low}"
    if "pattern" in schema:
        return str(schema["pattern"]) + (f", at most {schema['maxLength']}" if "maxLength" in schema else "")
    if "maxLength" in schema:
        return f"at most {schema['maxLength']} characters"
    if "maxItems" in schema and "prefixItems" not in schema:
        return f"at most {schema['maxItems']}"
    return ""
