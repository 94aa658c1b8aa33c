"""The documents' schemas as MongoDB's `$jsonSchema`: the server finds what breaks them, this module says why."""
# mypy: disable-error-code="import-untyped"
# mongoengine ships no types.

import re
import sys
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any

from bson import ObjectId
from mongoengine import (
    BooleanField,
    DateTimeField,
    DictField,
    EmbeddedDocument,
    EmbeddedDocumentField,
    GenericEmbeddedDocumentField,
    IntField,
    ListField,
    ObjectIdField,
    StringField,
)
from mongoengine import FloatField as AnyFloatField
from mongoengine.base import BaseField

from wyloop.stores.documents.base import SCHEMA_VERSION, ArrayField, StringsField, WyloopDocument

Schema = dict[str, Any]

LARGEST = sys.float_info.max
_INTEGER = ["int", "long"]
_NUMBER = ["double", "int", "long"]
_SIMPLE: tuple[tuple[type, str], ...] = (
    (BooleanField, "bool"),
    (DateTimeField, "date"),
    (DictField, "object"),
    (ObjectIdField, "objectId"),
)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "bool": (bool,),
    "date": (datetime,),
    "object": (dict,),
    "objectId": (ObjectId,),
    "array": (list,),
    "int": (int,),
    "long": (int,),
    "double": (float,),
    "null": (type(None),),
}


def json_schema(document: type[WyloopDocument]) -> Schema:
    """Return what MongoDB checks a stored document of this class against: types, ranges, and no other field."""
    schema = _object(document)
    schema["properties"]["_id"] = {}
    schema["properties"]["schema_version"] = {"bsonType": _INTEGER, "enum": [SCHEMA_VERSION]}
    return schema


def explain(schema: Schema, value: object, place: str = "") -> str:
    """Return the first thing by which a value breaks a schema, as `field: value; expected ...`; "" if it does not."""
    if "anyOf" in schema:
        reasons = [explain(option, value, place) for option in schema["anyOf"]]
        return "" if "" in reasons else min(reasons, key=len)
    kinds = schema.get("bsonType")
    if kinds is not None and not _is_of(value, [kinds] if isinstance(kinds, str) else kinds):
        expected = " or ".join([kinds] if isinstance(kinds, str) else dict.fromkeys(kinds))
        return f"{place} = {_short(value)}; expected {expected}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{place} = {_short(value)}; expected one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _explain_number(schema, value, place)
    if isinstance(value, str):
        pattern = schema.get("pattern")
        return f"{place} = {_short(value)}; expected {pattern}" if pattern and not re.search(pattern, value) else ""
    if isinstance(value, list):
        return _explain_list(schema, value, place)
    return _explain_object(schema, value, place) if isinstance(value, dict) else ""


def _explain_number(schema: Schema, value: float, place: str) -> str:
    low, high = schema.get("minimum", -LARGEST), schema.get("maximum", LARGEST)
    if not isfinite(value):
        return f"{place} = {value}; expected a finite number"
    return "" if low <= value <= high else f"{place} = {value}; expected {low:g} to {high:g}"


def _explain_list(schema: Schema, value: list[Any], place: str) -> str:
    n_least, n_most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if not n_least <= len(value) <= n_most:
        return f"{place} holds {len(value)} values; expected {n_least}"
    items = schema.get("items", {})
    return next((why for i, item in enumerate(value) if (why := explain(items, item, f"{place}.{i}"))), "")


def _explain_object(schema: Schema, value: Mapping[str, Any], place: str) -> str:
    properties = schema.get("properties", {})
    prefix = f"{place}." if place else ""
    for name in schema.get("required", ()):
        if name not in value:
            return f"{prefix}{name} is missing; expected a value"
    for name, item in value.items():
        if name in properties:
            if why := explain(properties[name], item, f"{prefix}{name}"):
                return why
        elif schema.get("additionalProperties") is False:
            return f"{prefix}{name} = {_short(item)}; expected no such field"
    return ""


def _object(document: type[WyloopDocument] | type[EmbeddedDocument]) -> Schema:
    properties: Schema = {}
    required: list[str] = []
    for field in document._fields.values():
        if field.db_field == "_id":
            continue
        properties[field.db_field] = _field(field)
        if field.required:
            required.append(field.db_field)
    if document._meta.get("allow_inheritance"):
        properties["_cls"] = {"bsonType": "string"}
    schema: Schema = {"bsonType": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def _field(field: BaseField) -> Schema:
    schema = _kind(field)
    if field.choices and not isinstance(field, GenericEmbeddedDocumentField):
        chosen = [choice[0] if isinstance(choice, tuple | list) else choice for choice in field.choices]
        schema["enum"] = chosen + ([] if field.required else [None])
    if field.required or not schema:
        return schema
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], {"bsonType": "null"}]}
    kinds = schema["bsonType"]
    return schema | {"bsonType": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


def _kind(field: BaseField) -> Schema:
    if isinstance(field, StringField):
        pattern = field.regex.pattern if field.regex is not None else None
        return {"bsonType": "string"} | ({"pattern": pattern} if pattern else {})
    if isinstance(field, IntField):
        return {"bsonType": _INTEGER} | _range(field)
    if isinstance(field, AnyFloatField):
        return {"bsonType": _NUMBER, "minimum": -LARGEST, "maximum": LARGEST} | _range(field)
    if isinstance(field, ArrayField):
        number = {"bsonType": _NUMBER, "minimum": -LARGEST, "maximum": LARGEST}
        row = {"bsonType": "array", "items": number, "minItems": field.width, "maxItems": field.width}
        return {"bsonType": "array", "items": number if field.width is None else row}
    if isinstance(field, StringsField):
        return {"bsonType": "array", "items": {"bsonType": "string"}}
    if isinstance(field, ListField):
        return {"bsonType": "array"} | ({"items": _required(field.field)} if field.field is not None else {})
    if isinstance(field, EmbeddedDocumentField):
        return _object(field.document_type)
    if isinstance(field, GenericEmbeddedDocumentField):
        return {"anyOf": [_choice(choice) for choice in field.choices]}
    return next(({"bsonType": kind} for known, kind in _SIMPLE if isinstance(field, known)), {})


def _required(field: BaseField) -> Schema:
    schema = _field(field)
    kinds = schema.get("bsonType")
    return schema | {"bsonType": [kind for kind in kinds if kind != "null"]} if isinstance(kinds, list) else schema


def _choice(document: type[EmbeddedDocument]) -> Schema:
    schema = _object(document)
    schema["properties"]["_cls"] = {"bsonType": "string", "enum": [document._class_name]}
    return schema | {"required": [*schema.get("required", ()), "_cls"]}


def _range(field: BaseField) -> Schema:
    limits = (("minimum", field.min_value), ("maximum", field.max_value))
    return {name: value for name, value in limits if value is not None}


def _is_of(value: object, kinds: list[str]) -> bool:
    if isinstance(value, bool):
        return "bool" in kinds
    return any(isinstance(value, _TYPES.get(kind, ())) for kind in kinds)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
