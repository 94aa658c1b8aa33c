import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from wyloop.models.screening.hull import (
    EntriesByElements,
    Entry,
    decompose,
    distance_to_hull,
    distances_to_hull,
    energy_above_hull,
    hull_energy,
    predicted_stability,
)

# A made-up Li-O system that can be solved on paper, eV/atom.
LI2O = Entry({"Li": 2, "O": 1}, -2.0, "Li2O")
LI2O2 = Entry({"Li": 2, "O": 2}, -1.6, "Li2O2")
LIO3 = Entry({"Li": 1, "O": 3}, -0.5, "LiO3")  # above the line from Li2O2 to O: -0.8
SYSTEM = [LI2O, LI2O2, LIO3]


@pytest.mark.parametrize(
    ("amounts", "energy", "phases"),
    [
        ({"Li": 1}, 0.0, {"Li": 1.0}),
        ({"Li": 4, "O": 2}, -2.0, {"Li2O": 1.0}),
        ({"Li": 5, "O": 1}, -1.0, {"Li": 0.5, "Li2O": 0.5}),
        ({"Li": 1, "O": 3}, -0.8, {"Li2O2": 0.5, "O": 0.5}),
        ({"Li": 7, "O": 5}, -1.8, {"Li2O": 0.5, "Li2O2": 0.5}),  # x(Li) = 7/12, halfway from 2/3 to 1/2
    ],
)
def test_binary_hull_by_hand(amounts: dict[str, int], energy: float, phases: dict[str, float]) -> None:
    hull = decompose(amounts, SYSTEM)
    assert hull.energy_per_atom == pytest.approx(energy)
    assert dict(hull.phases) == pytest.approx(phases)


def test_ternary_hull_by_hand() -> None:
    oxides = [Entry({"Sr": 1, "O": 1}, -3.0, "SrO"), Entry({"Ti": 1, "O": 2}, -3.3, "TiO2")]
    # SrTiO3 = SrO (2 atoms) + TiO2 (3 atoms): (2 x -3.0 + 3 x -3.3) / 5
    assert hull_energy({"Sr": 1, "Ti": 1, "O": 3}, oxides) == pytest.approx(-3.18)
    assert distance_to_hull({"Sr": 1, "Ti": 1, "O": 3}, -3.5, oxides) == pytest.approx(-0.32)
    assert energy_above_hull({"Sr": 1, "Ti": 1, "O": 3}, -3.5, oxides) == 0.0
    assert energy_above_hull({"Sr": 1, "Ti": 1, "O": 3}, -3.1, oxides) == pytest.approx(0.08)


def test_elements_are_always_there_at_zero() -> None:
    assert hull_energy({"Ga": 1, "As": 1}, []) == 0.0
    assert energy_above_hull({"Ga": 1, "As": 1}, 0.2, []) == pytest.approx(0.2)
    assert distance_to_hull({"Ga": 1, "As": 1}, -0.4, []) == pytest.approx(-0.4)


def test_an_element_above_or_below_zero() -> None:
    assert hull_energy({"C": 1}, [Entry({"C": 1}, 0.13, "diamond")]) == 0.0
    assert hull_energy({"C": 1}, [Entry({"C": 1}, -0.01, "graphite")]) == pytest.approx(-0.01)


def test_entries_with_other_elements_do_not_compete() -> None:
    assert hull_energy({"Li": 1, "O": 1}, [*SYSTEM, Entry({"Na": 1, "O": 1}, -9.0)]) == pytest.approx(-1.6)


def test_order_multiple_and_duplicates_do_not_matter() -> None:
    doubled = [Entry({"O": 4, "Li": 4}, -1.6, "same"), *SYSTEM[::-1], *SYSTEM]
    for amounts in ({"Li": 7, "O": 5}, {"Li": 5, "O": 1}, {"Li": 1, "O": 9}):
        twice = {element: 2 * n for element, n in reversed(amounts.items())}
        assert hull_energy(twice, doubled) == pytest.approx(hull_energy(amounts, SYSTEM), abs=1e-12)


def test_the_index_keeps_the_lowest_of_a_composition_and_only_what_competes() -> None:
    index = EntriesByElements([Entry({"Li": 1, "O": 1}, -1.0, "worse"), *SYSTEM, Entry({"Na": 1}, 0.0, "Na")])
    assert {entry.identity for entry in index({"Li": 1, "O": 1})} == {"Li2O", "Li2O2", "LiO3"}
    assert [entry.identity for entry in index({"Na": 1, "Li": 1})] == ["Na"]
    assert index({"Ga": 1}) == []


def test_batch_agrees_with_single() -> None:
    compounds = [({"Li": 1, "O": 1}, -1.7), ({"Li": 3, "O": 1}, -1.0), ({"Ga": 1, "As": 1}, 0.1)]
    single = [distance_to_hull(amounts, energy, SYSTEM) for amounts, energy in compounds]
    assert distances_to_hull(compounds, SYSTEM) == pytest.approx(single)
    assert single == pytest.approx([-0.1, 0.5, 0.1])  # Li3O: 3/4 Li2O + 1/4 Li = -1.5


def test_predicted_stability_keeps_the_signed_distance() -> None:
    stable = predicted_stability({"Li": 1, "O": 1}, -1.7, SYSTEM, cutoff=0.0)
    assert stable.passed
    assert stable.value == pytest.approx(-0.1)
    assert stable.unit == "eV/atom"
    assert "Li2O2" in stable.reason
    unstable = predicted_stability({"Li": 1, "O": 1}, -1.4, SYSTEM, cutoff=0.1, uncertainty=0.05)
    assert not unstable.passed
    assert unstable.value == pytest.approx(0.2)
    assert "+0.200 ± 0.050" in unstable.reason


SYMBOLS = ("Li", "Ti", "Fe", "P", "O")
AMOUNTS = st.dictionaries(st.sampled_from(SYMBOLS), st.integers(1, 6), min_size=1, max_size=5)
# few distinct energies: ties and degenerate corners on purpose
ENERGIES = st.one_of(st.sampled_from([-2.0, -1.0, 0.0, 1.0]), st.floats(-4.0, 2.0))
ENTRIES = st.lists(st.builds(Entry, AMOUNTS, ENERGIES), max_size=40)


@settings(max_examples=200, deadline=None)
@given(AMOUNTS, ENTRIES)
def test_agrees_with_a_general_linear_programme(amounts: dict[str, int], entries: list[Entry]) -> None:
    symbols = list(amounts)
    phases = [Entry({symbol: 1}, 0.0) for symbol in symbols]
    phases += [entry for entry in entries if set(entry.amounts) <= set(symbols)]
    shares = [[e.amounts.get(s, 0) / sum(e.amounts.values()) for e in phases] for s in symbols]
    total = sum(amounts.values())
    solution = linprog(
        [e.formation_energy_per_atom for e in phases], A_eq=shares, b_eq=[n / total for n in amounts.values()]
    )
    assert hull_energy(amounts, entries) == pytest.approx(solution.fun, abs=1e-8)


@settings(max_examples=100, deadline=None)
@given(AMOUNTS, ENTRIES, st.builds(Entry, AMOUNTS, ENERGIES))
def test_a_further_phase_never_raises_the_hull(amounts: dict[str, int], entries: list[Entry], more: Entry) -> None:
    hull = decompose(amounts, entries)
    assert hull.energy_per_atom <= 1e-9
    assert hull_energy(amounts, [*entries, more]) <= hull.energy_per_atom + 1e-8
    assert sum(share for _, share in hull.phases) == pytest.approx(1.0)
    assert np.isfinite(hull.energy_per_atom)


@settings(max_examples=100, deadline=None)
@given(AMOUNTS, ENTRIES, ENERGIES)
def test_a_compound_added_to_the_hull_is_never_below_it(
    amounts: dict[str, int], entries: list[Entry], energy: float
) -> None:
    above = energy_above_hull(amounts, energy, entries)
    with_itself = hull_energy(amounts, [*entries, Entry(amounts, energy)])
    assert above == pytest.approx(energy - with_itself, abs=1e-8)
