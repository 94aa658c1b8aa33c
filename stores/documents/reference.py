"""What every collection's documents hold: fields, types and units, read from the documents' classes themselves."""
# mypy: disable-error-code="import-untyped,misc"
# mongoengine ships no types.

from collections.abc import Iterator
from dataclasses import dataclass

from mongoengine import EmbeddedDocument, EmbeddedDocumentField, GenericEmbeddedDocumentField, ListField
from mongoengine.base import BaseField

from wyloop.models.errors import DatabaseError
from wyloop.stores.documents.base import WyloopDocument
from wyloop.stores.documents.registry import DOCUMENTS


@dataclass(frozen=True)
class FieldReference:
    """One field; `[]` in its name is each item of a list, `(...)` the kind of document where there are several."""

    collection: str
    field: str
    type: str
    unit: str | None
    is_required: bool
    choices: tuple[str, ...]


def fields_of(collection: str | None = None) -> list[FieldReference]:
    """Return the fields of one collection, or of all.

    Raises:
        DatabaseError: No documents' collection has this name.
    """
    known = {str(document._meta["collection"]): document for document in DOCUMENTS}
    if collection is not None and collection not in known:
        raise DatabaseError(f"no collection {collection!r}; expected one of {', '.join(known)}")
    wanted = known if collection is None else {collection: known[collection]}
    return [reference for name, document in wanted.items() for reference in _walk(name, document, "")]


def _walk(
    collection: str, document: type[WyloopDocument] | type[EmbeddedDocument], prefix: str
) -> Iterator[FieldReference]:
    for field in document._fields.values():
        name = f"{prefix}{field.db_field}"
        unit = getattr(field, "unit", None)
        choices = field.choices if not isinstance(field, GenericEmbeddedDocumentField) else None
        kind = type(field).__name__.removesuffix("Field")
        yield FieldReference(collection, name, kind, unit, bool(field.required), tuple(map(str, choices or ())))
        yield from _inside(collection, field, name)


def _inside(collection: str, field: BaseField, name: str) -> Iterator[FieldReference]:
    inner, place = (field.field, f"{name}[]") if isinstance(field, ListField) else (field, name)
    if isinstance(inner, EmbeddedDocumentField):
        yield from _walk(collection, inner.document_type, f"{place}.")
    elif isinstance(inner, GenericEmbeddedDocumentField):
        for choice in inner.choices:
            yield from _walk(collection, choice, f"{place}({choice.__name__}).")
