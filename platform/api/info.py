"""What the OPTIMADE server says about itself: provider, implementation, endpoints, properties, links."""
# mypy: disable-error-code="import-untyped"
# optimade-python-tools ships no types.

from functools import cache
from typing import Any

from wyloop.platform.api.entries import COLLECTIONS
from wyloop.platform.api.properties import PREFIX, properties
from wyloop.stores.documents.base import code_version

SCHEMA_URL = "https://schemas.optimade.org/openapi/v1.2.0/optimade.json"
_DESCRIPTIONS = {
    "structures": "Inorganic crystals: known ones as their sources give them, and those computed here.",
    "references": "Publications that the structures' sources cite.",
}


def provider() -> dict[str, Any]:
    """Return who provides the data."""
    return {
        "name": "Wyloop",
        "description": "A Wyloop discovery platform: known crystals, and those that its campaigns computed.",
        "prefix": PREFIX,
    }


def implementation() -> dict[str, Any]:
    """Return what serves the data."""
    return {"name": "Wyloop", "version": code_version()}


def base_info(base_url: str, version: str) -> dict[str, Any]:
    """Return the resource of /info.

    Args:
        base_url: Address of the server without version.
        version: Major version in addresses, such as v1.
    """
    from optimade import __api_version__

    entry_types = list(COLLECTIONS)
    return {
        "id": "/",
        "type": "info",
        "attributes": {
            "api_version": __api_version__,
            "available_api_versions": [{"url": f"{base_url}/{version}/", "version": __api_version__}],
            "formats": ["json"],
            "available_endpoints": ["info", "links", *entry_types],
            "entry_types_by_format": {"json": entry_types},
            "is_index": False,
        },
    }


@cache
def entry_info(entry_type: str) -> dict[str, Any]:
    """Return the resource of /info/{entry_type}: every property with type, unit and description."""
    known = properties(entry_type)
    described = {
        name: {
            "description": found.description,
            "type": "string" if found.kind == "constant" else found.kind,
            "sortable": found.is_sortable,
        }
        | ({"unit": found.unit} if found.unit else {})
        for name, found in known.items()
    }
    return {
        "id": entry_type,
        "type": "info",
        "description": _DESCRIPTIONS[entry_type],
        "formats": ["json"],
        "properties": described,
        "output_fields_by_format": {"json": list(known)},
    }


def links(base_url: str) -> list[dict[str, Any]]:
    """Return the resources of /links: this server, and the list of all providers."""
    common = {"homepage": None}
    return [
        {
            "id": PREFIX,
            "type": "links",
            "attributes": {
                "name": "Wyloop",
                "description": str(provider()["description"]),
                "base_url": base_url,
                "link_type": "root",
                **common,
            },
        },
        {
            "id": "optimade",
            "type": "links",
            "attributes": {
                "name": "Materials Consortia's providers",
                "description": "The list of OPTIMADE providers.",
                "base_url": "https://providers.optimade.org",
                "link_type": "providers",
                **common,
            },
        },
    ]
