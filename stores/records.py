"""Conversions between Mongo documents and the plain values that leave the stores."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from math import gcd, inf, isfinite
from typing import Any, TypeAlias

import numpy as np
from bson import ObjectId

from wyloop.models.crystal import Crystal

MOST_IN_ANION = 1.65  # difference in Pauling's electronegativity up to which pymatgen writes two elements as an anion
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
JSON: TypeAlias = "None | bool | int | float | str | list[JSON] | dict[str, JSON]"


def crystal_fields(crystal: Crystal) -> dict[str, Any]:
    """Return the crystal as the fields of a document: lattice (Å), species, frac_coords."""
    return {
        "lattice": np.asarray(crystal.lattice, dtype=np.float64).tolist(),
        "species": list(crystal.species),
        "frac_coords": np.asarray(crystal.frac_coords, dtype=np.float64).tolist(),
    }


def crystal_of(fields: Mapping[str, Any]) -> Crystal:
    """Read the crystal back from the fields of a document."""
    return Crystal(
        np.array(fields["lattice"], dtype=np.float64),
        tuple(fields["species"]),
        np.array(fields["frac_coords"], dtype=np.float64).reshape(-1, 3),
    )


def composition_fields(amounts: Mapping[str, int]) -> dict[str, Any]:
    """Return formulas, elements and chemical system under their OPTIMADE names.

    Args:
        amounts: Atoms of each element.
    """
    elements = sorted(amounts)
    divisor = gcd(*amounts.values())
    return {
        "formula_pretty": _reduced_formula(tuple((symbol, amounts[symbol] // divisor) for symbol in elements)),
        "formula_anonymous": _anonymous([amount // divisor for amount in amounts.values()]),
        "chemsys": "-".join(elements),
        "elements": elements,
        "nelements": len(elements),
    }


@lru_cache(maxsize=200_000)
def _reduced_formula(amounts: tuple[tuple[str, int], ...]) -> str:
    """Return what pymatgen's `Composition.reduced_formula` is, at a twentieth of the time.

    Args:
        amounts: Whole amounts without a common divisor.
    """
    from pymatgen.core.composition import Composition  # half a second

    order = sorted(amounts, key=lambda one: (_electronegativity(one[0]), one[0]))
    anion = ""
    if len(order) >= 3 and _electronegativity(order[-1][0]) - _electronegativity(order[-2][0]) < MOST_IN_ANION:
        (one, n), (other, m) = order[-2:]
        n_anions = gcd(n, m)
        if n_anions != 1:
            anion = f"({_counted(one, n // n_anions)}{_counted(other, m // n_anions)}){n_anions}"
            order = order[:-2]
    formula = "".join(_counted(symbol, amount) for symbol, amount in order) + anion
    return str(Composition.special_formulas.get(formula, formula))


@lru_cache(maxsize=200)
def _electronegativity(symbol: str) -> float:
    from pymatgen.core.periodic_table import Element  # half a second

    value = float(Element(symbol).X)
    return value if isfinite(value) else inf


def _counted(symbol: str, amount: int) -> str:
    return symbol if amount == 1 else f"{symbol}{amount}"


def _anonymous(amounts: list[int]) -> str:
    counts = sorted(amounts, reverse=True)
    return "".join(f"{_letters(i)}{count if count > 1 else ''}" for i, count in enumerate(counts))


def _letters(index: int) -> str:
    first, second = divmod(index, 26)
    return chr(65 + second) if first == 0 else chr(65 + first - 1) + chr(97 + second)


def digest(value: object, length: int = 64) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of a JSON value, keys sorted."""
    return hashlib.sha256(_JSON.encode(value).encode()).hexdigest()[:length]


def object_id(identity: str) -> ObjectId:
    """Return the `_id` of a derived document: it follows from the identity, so a rebuilt document has the same one."""
    return ObjectId(hashlib.sha256(identity.encode()).digest()[:12])


def to_json(value: object) -> JSON:
    """Turn what MongoDB returns, or numpy makes, into plain JSON: times as ISO texts, non-finite numbers as null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items() if key not in ("_id", "_cls")}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    return str(value)
