"""Query parameters of the OPTIMADE server, read and checked in one place."""

import re
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, EmailStr, Field, ValidationError

from wyloop.platform.api.entries import COLLECTIONS, Limits, Listing
from wyloop.platform.api.errors import bad_request, not_implemented, version_not_supported
from wyloop.platform.api.filters import known_prefixes
from wyloop.platform.api.properties import PREFIX

if TYPE_CHECKING:
    from fastapi import Request

MAJOR_VERSION = 1
PAGING = ("page_offset", "page_number", "page_above", "page_cursor", "page_below")


class Parameters(BaseModel):
    """Parameters of a single entry and of every other answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    response_format: str = "json"
    response_fields: str = ""
    include: str = "references"
    email_address: EmailStr | None = None
    api_hint: str = ""


class ListingParameters(Parameters):
    """Parameters of a listing."""

    filter: str = ""
    sort: str = ""
    page_limit: int | None = Field(default=None, ge=0)
    page_offset: int = Field(default=0, ge=0)
    page_number: int = Field(default=1, ge=1)
    page_above: str | None = None
    page_cursor: str | None = None
    page_below: str | None = None


Kind = TypeVar("Kind", bound=Parameters)


def read(request: "Request", kind: type[Kind]) -> tuple[Kind, tuple[str, ...]]:
    """Return the parameters of a request, and a warning for each that only another provider may know.

    Raises:
        BadRequest: A parameter that nobody knows, that stands twice or without a value, or a value out of its range.
        VersionNotSupported: A hint at a version to come.
    """
    for part in request.url.query.split("&"):
        if part and "=" not in part:
            raise bad_request(f"query parameter {part[:80]!r} without a value; expected name=value")
    names = Counter(name for name, _ in request.query_params.multi_items())
    if len(names) < names.total():
        raise bad_request(f"query parameter {names.most_common(1)[0][0][:80]!r} given twice; expected it once")
    warnings = []
    for name in names.keys() - kind.model_fields.keys():
        prefix = name.split("_")[1] if name.startswith("_") and name.count("_") > 1 else ""
        if not prefix or prefix == PREFIX:
            raise bad_request(f"no query parameter {name[:80]!r} here; expected one of the OPTIMADE standard")
        if prefix not in known_prefixes():
            warnings.append(f"query parameter {name[:80]!r} is of a provider nobody knows; it was ignored")
    try:
        found = kind.model_validate(dict(request.query_params))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise bad_request(f"query parameter {first['loc'][0]}: {first['msg']}") from None
    _check(found)
    return found, tuple(sorted(warnings))


def listing(parameters: ListingParameters, limits: Limits) -> Listing:
    """Return what a request asks of a listing.

    Raises:
        BadRequest: More than one way of paging.
        NotImplementedResponse: A way of paging that this server does not have.
    """
    given = [name for name in PAGING if name in parameters.model_fields_set]
    if len(given) > 1:
        raise bad_request(f"{' and '.join(given)}; expected one way of paging")
    if given and given[0] in ("page_cursor", "page_below"):
        raise not_implemented(f"{given[0]} is not supported; follow links.next, or use page_offset or page_above")
    limit = parameters.page_limit
    offset = (parameters.page_number - 1) * (limits.page_limit if limit is None else limit)
    return Listing(
        filter=parameters.filter,
        sort=parameters.sort,
        response_fields=names_in(parameters.response_fields),
        page_limit=limit,
        page_offset=parameters.page_offset or offset,
        page_above=parameters.page_above,
    )


def names_in(text: str) -> tuple[str, ...]:
    """Return the names of a list with commas."""
    return tuple(text.split(",")) if text else ()


def _check(parameters: Parameters) -> None:
    if parameters.response_format not in ("", "json"):
        raise bad_request(f"response_format {parameters.response_format[:80]!r}; expected json")
    for name in names_in(parameters.include):
        if name not in COLLECTIONS:
            raise bad_request(f"nothing to include of type {name[:80]!r}; expected {', '.join(COLLECTIONS)}")
    hint = parameters.api_hint
    if hint and not re.fullmatch(r"v\d+(\.\d+)?", hint, re.ASCII):
        raise bad_request(f"api_hint {hint[:80]!r}; expected a version such as v1 or v1.2")
    if hint and int(hint[1:].partition(".")[0][:9]) > MAJOR_VERSION:
        raise version_not_supported(f"api_hint {hint[:80]!r}")
