from collections.abc import Iterator
from typing import Any

import pytest
from mongoengine import (
    DecimalField,
    EmbeddedDocument,
    EmbeddedDocumentField,
    FloatField,
    GenericEmbeddedDocumentField,
    IntField,
    ListField,
)
from mongoengine.base import BaseField

from wyloop.models.errors import DatabaseError
from wyloop.stores.documents.base import ArrayField, WyloopDocument, checked, checked_update
from wyloop.stores.documents.registry import DOCUMENTS
from wyloop.stores.documents.structures import StructureDocument

NUMERIC = (FloatField, IntField, DecimalField, ArrayField)


def fields_of(document: type[EmbeddedDocument] | type[WyloopDocument]) -> Iterator[tuple[str, BaseField]]:
    """Every field of a document, those of documents embedded in it included."""
    for name, field in document._fields.items():
        yield f"{document.__name__}.{name}", field
        inner = field.field if isinstance(field, ListField) else field
        if isinstance(inner, EmbeddedDocumentField):
            yield from fields_of(inner.document_type)
        elif isinstance(inner, GenericEmbeddedDocumentField):
            for choice in inner.choices:
                yield from fields_of(choice)
        elif inner is not field and inner is not None:
            yield f"{document.__name__}.{name}[]", inner


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.__name__)
def test_every_numeric_field_has_its_unit(document: type[WyloopDocument]) -> None:
    numeric = {name: field for name, field in fields_of(document) if isinstance(field, NUMERIC)}
    assert numeric
    assert [name for name, field in numeric.items() if not getattr(field, "unit", "")] == []


def test_the_walk_reaches_embedded_results() -> None:
    names = {name for document in DOCUMENTS for name, _ in fields_of(document)}
    assert {"PhononResult.frequencies", "PredictionFields.band_gap", "CrystalFields.lattice"} <= names


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.__name__)
def test_every_document_is_strict_versioned_and_has_an_identity(document: type[WyloopDocument]) -> None:
    assert document._meta["strict"]
    assert {"schema_version", "code_version", "last_updated"} <= set(document._fields)
    assert any(spec.get("unique") for spec in document._meta["index_specs"])
    with pytest.raises(DatabaseError, match="has no field 'colour'"):
        checked(document, {"colour": 1})
    with pytest.raises(DatabaseError, match="lacks"):
        checked(document, {})


FIELDS: dict[str, Any] = {
    "structure_id": "s:1",
    "source": "s",
    "source_id": "1",
    "content_hash": "0",
    "crystal_hash": "0",
    "lattice": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "species": ["Po"],
    "frac_coords": [[0, 0, 0]],
    "formula_pretty": "Po",
    "formula_anonymous": "A",
    "chemsys": "Po",
    "elements": ["Po"],
    "nelements": 1,
    "nsites": 1,
    "volume": 1.0,
    "volume_per_atom": 1.0,
}


def test_a_checked_document_is_what_mongoengine_makes() -> None:
    made = checked(StructureDocument, FIELDS)
    document = StructureDocument(**made)
    document.validate()
    assert dict(document.to_mongo()) == made
    assert made["last_updated"].tzinfo is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lattice": [[1, 0], [0, 1]]}, "shape"),
        ({"lattice": [[1, 0, 0], [0, 1, 0], [0, 0, float("nan")]]}, "not finite"),
        ({"frac_coords": "x"}, "array of numbers"),
        ({"species": [1]}, "list of texts"),
        ({"band_gap": float("inf")}, "not a finite number"),
        ({"band_gap": -1.0}, "too small"),
        ({"space_group_number": 231}, "too large"),
    ],
)
def test_a_wrong_value_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DatabaseError, match=message):
        checked(StructureDocument, FIELDS | change)
    with pytest.raises(DatabaseError, match=message):
        checked_update(StructureDocument, change)
