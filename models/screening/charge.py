"""Charge neutrality: whether common oxidation states balance in a formula, with the electronegative elements as anions.

Oxidation states and how often each is reported are SMACT's ICSD 2024 list (counts), electronegativities are Pauling's.
A state counts if its element has at least 3 reports of it, takes that sign in at least 1 % of its reports, and this
state in at least 1 % of those of its sign. Source: Davies et al., doi:10.21105/joss.01361 and 10.1039/D5FD00032G.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from math import gcd

from wyloop.models.screening.verdict import Verdict

MIN_REPORTS = 3
MIN_SHARE = 0.01  # of an element's reports for a sign, and of a sign's reports for a state
MIXED_VALENCE_FACTOR = 0.5  # on the score: one element in two states is likelier an artefact than a compound
MAX_REDUCED_ATOMS = 400  # bounds the work per formula
ELECTRONEGATIVITY_MISSING = {"Pm": 1.13}  # absent in SMACT's table; Pauling scale

Scores = dict[int, tuple[float, tuple[str, ...]]]
"""Total charge (e) to the best summed log share that reaches it, and the labels of its states."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Oxidation states of a formula."""

    states: tuple[str, ...]
    """Such as `Ga3+`; an element in two states gives one label, `Fe2+/Fe3+`."""
    anions: tuple[str, ...]
    """Elements with a negative state."""
    net_charge: int
    """Sum over the reduced formula, e; zero if neutral."""
    score: float
    """Geometric mean over atoms of how common each state is for its element and sign, 0 to 1."""
    is_mixed: bool

    def __str__(self) -> str:
        return " ".join(self.states)


def charge_neutrality(amounts: Mapping[str, int], *, allow_mixed_valence: bool = True) -> Verdict:
    """Judge whether some assignment of common oxidation states is neutral.

    Every element takes one state; if that fails, and it is allowed, one cation takes two. Every anion must be more
    electronegative than every cation. Elements and intermetallics have no anion and fail.

    Args:
        amounts: Atoms of each element, any multiple of the formula.
        allow_mixed_valence: Whether an element may take two states, at a lower score.

    Returns:
        Value: the score of the winning assignment (`Assignment.score`, halved for mixed valence), 0 if there is
        none. The reason names the assignment, or the nearest miss and the charge left, e/atom.
    """
    best = best_assignment(amounts)
    n_atoms = sum(dict(_reduced(amounts)).values())
    if best is None:
        return Verdict("charge_neutrality", False, 0.0, "1", _why_none(amounts))
    if best.net_charge:
        left = best.net_charge / n_atoms
        reason = f"no neutral assignment; the nearest, {best}, leaves {left:+.2f} e/atom"
        return Verdict("charge_neutrality", False, 0.0, "1", reason)
    if best.is_mixed and not allow_mixed_valence:
        reason = f"neutral only with mixed valence, {best}"
        return Verdict("charge_neutrality", False, 0.0, "1", reason)
    reason = f"{best}, mixed valence" if best.is_mixed else str(best)
    return Verdict("charge_neutrality", True, best.score, "1", reason)


def anion_family(amounts: Mapping[str, int]) -> Verdict:
    """Judge whether exactly one element is an anion in the winning neutral assignment.

    Returns:
        Value: the number of anion elements; `None` if no assignment is neutral.
    """
    best = best_assignment(amounts)
    if best is None or best.net_charge:
        return Verdict("anion_family", False, None, "1", "no neutral assignment, so no anion")
    names = [f"{element} ({_FAMILIES.get(element, 'other')})" for element in best.anions]
    return Verdict("anion_family", len(names) == 1, float(len(names)), "1", f"anions: {', '.join(names)}")


_FAMILIES = {
    **dict.fromkeys(("F", "Cl", "Br", "I"), "halide"),
    **dict.fromkeys(("S", "Se", "Te"), "chalcogenide"),
    **dict.fromkeys(("N", "P", "As", "Sb", "Bi"), "pnictide"),
    **dict.fromkeys(("C", "Si", "Ge", "Sn"), "tetrelide"),
    "O": "oxide",
    "H": "hydride",
    "B": "boride",
}


@dataclass(frozen=True, slots=True)
class _Ion:
    """What SMACT says of an element: log share of each state, by sign, and its electronegativity."""

    cation: dict[int, float]
    anion: dict[int, float]
    electronegativity: float | None


@cache
def _ions() -> dict[str, _Ion]:
    from smact import Element  # lazy: smact brings pandas and pymatgen
    from smact.utils.oxidation import ICSD24OxStatesFilter

    reports: dict[str, dict[int, int]] = {}
    table = ICSD24OxStatesFilter().ox_states_df
    for symbol, state, count in zip(table["element"], table["oxidation_state"], table["results_count"], strict=True):
        if state != 0 and count >= MIN_REPORTS:
            reports.setdefault(str(symbol), {})[int(state)] = int(count)
    return {
        symbol: _Ion(
            _log_shares(counts, 1),
            _log_shares(counts, -1),
            Element(symbol).pauling_eneg or ELECTRONEGATIVITY_MISSING.get(symbol),
        )
        for symbol, counts in reports.items()
    }


def _log_shares(counts: dict[int, int], sign: int) -> dict[int, float]:
    of_sign = {state: count for state, count in counts.items() if state * sign > 0}
    total = sum(of_sign.values())
    if total < MIN_SHARE * sum(counts.values()):
        return {}
    kept = {state: count for state, count in of_sign.items() if count >= MIN_SHARE * total}
    return {state: math.log(count / sum(kept.values())) for state, count in kept.items()}


def _reduced(amounts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    divisor = gcd(*amounts.values())
    return tuple(sorted((element, amount // divisor) for element, amount in amounts.items() if amount))


def best_assignment(amounts: Mapping[str, int]) -> Assignment | None:
    """Return the best neutral assignment, else the one of least charge; `None` if no element can be the anion.

    One state an element wins over mixed valence, then the score decides; cached by reduced composition.
    """
    return _best(_reduced(amounts))


@lru_cache(maxsize=200_000)
def _best(reduced: tuple[tuple[str, int], ...]) -> Assignment | None:
    ions = _ions()
    n_atoms = sum(amount for _, amount in reduced)
    values = [(ions[element].electronegativity, element, n) for element, n in reduced if element in ions]
    ordered = sorted((value, element, n) for value, element, n in values if value is not None)
    if len(ordered) < len(reduced) or n_atoms > MAX_REDUCED_ATOMS:
        return None
    plain = _best_of_cuts(ordered, is_mixed=False)
    if plain is not None and plain.net_charge == 0:
        return plain
    mixed = _best_of_cuts(ordered, is_mixed=True)
    return mixed if mixed is not None and mixed.net_charge == 0 else plain


def _best_of_cuts(ordered: list[tuple[float, str, int]], *, is_mixed: bool) -> Assignment | None:
    """Try every place in the order of electronegativity to separate the cations (before) from the anions (after)."""
    n_atoms = sum(amount for _, _, amount in ordered)
    best: tuple[int, float, tuple[str, ...], int, int] | None = None
    for cut in range(1, len(ordered)):
        if ordered[cut - 1][0] == ordered[cut][0]:
            continue
        cations = _reach(ordered[:cut], 1, is_mixed=is_mixed)
        anions = _reach(ordered[cut:], -1, is_mixed=False)
        for positive, (score, labels) in cations.items():
            for negative in (-positive,) if -positive in anions else () if best and not best[0] else anions:
                other = anions[negative]
                found = (abs(positive + negative), -score - other[0], labels + other[1], cut, positive + negative)
                if best is None or found < best:
                    best = found
    if best is None:
        return None
    _, cost, labels, cut, net_charge = best
    score = math.exp(-cost / n_atoms) * (MIXED_VALENCE_FACTOR if is_mixed else 1.0)
    return Assignment(labels, tuple(sorted(e for _, e, _ in ordered[cut:])), net_charge, score, is_mixed)


def _reach(elements: list[tuple[float, str, int]], sign: int, *, is_mixed: bool) -> Scores:
    """Find every total charge that the elements reach with states of one sign, exactly one of them mixed if asked."""
    plain: Scores = {0: (0.0, ())}
    mixed: Scores = {}
    for _, element, amount in elements:
        options = _options(element, amount, sign)
        if is_mixed:
            mixed = _sum((mixed, options), (plain, _mixed_options(element, amount)))
        plain = _sum((plain, options))
    return mixed if is_mixed else plain


def _sum(*products: tuple[Scores, Scores]) -> Scores:
    total: Scores = {}
    for before, options in products:
        for charge, (score, labels) in before.items():
            for more, (share, label) in options.items():
                known = total.get(charge + more)
                if known is None or score + share > known[0]:
                    total[charge + more] = (score + share, labels + label)
    return total


@lru_cache(maxsize=50_000)
def _options(element: str, amount: int, sign: int) -> Scores:
    shares = _ions()[element].cation if sign > 0 else _ions()[element].anion
    return {amount * state: (amount * share, (_label(element, state),)) for state, share in shares.items()}


@lru_cache(maxsize=50_000)
def _mixed_options(element: str, amount: int) -> Scores:
    """Score two positive states shared among the atoms of one element."""
    shares = sorted(_ions()[element].cation.items())
    options: Scores = {}
    for place, (low, low_share) in enumerate(shares):
        for high, high_share in shares[place + 1 :]:
            for n_low in range(1, amount):
                charge = n_low * low + (amount - n_low) * high
                score = n_low * low_share + (amount - n_low) * high_share
                if charge not in options or score > options[charge][0]:
                    options[charge] = (score, (f"{_label(element, low)}/{_label(element, high)}",))
    return options


def _label(element: str, state: int) -> str:
    return f"{element}{abs(state)}{'+' if state > 0 else '-'}"


def _why_none(amounts: Mapping[str, int]) -> str:
    reduced = _reduced(amounts)
    unknown = [e for e, _ in reduced if e not in _ions() or _ions()[e].electronegativity is None]
    if unknown:
        return f"no oxidation states reported for {', '.join(unknown)}"
    if len(reduced) == 1:
        return "an element, no compound"
    if sum(amount for _, amount in reduced) > MAX_REDUCED_ATOMS:
        return f"a reduced formula of more than {MAX_REDUCED_ATOMS} atoms is not judged"
    return "no element with a common negative state that is the more electronegative: an alloy"
