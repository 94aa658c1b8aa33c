import math
import re

import numpy as np
import pytest
from pymatgen.core import Composition

from wyloop.models.physics.calculators import CHGNET_ELEMENTS
from wyloop.models.physics.references import formation_energy_per_atom, reference_energies
from wyloop.models.physics.relax import relax
from wyloop.models.wyckoff.encode import encode
from wyloop.stores.starter.read import PATH, StarterEntry, starter_header, starter_set


@pytest.fixture(scope="module")
def by_id() -> dict[str, StarterEntry]:
    return {entry.structure_id: entry for entry in starter_set()}


def test_enough_crystals_sorted_and_distinct(by_id: dict[str, StarterEntry]) -> None:
    assert len(starter_set()) >= 400
    assert list(by_id) == sorted(entry.structure_id for entry in starter_set())
    assert len(by_id) == len(starter_set())


def test_most_are_of_high_symmetry_and_small() -> None:
    high = sum(entry.space_group_number >= 143 for entry in starter_set())
    assert high >= 0.7 * len(starter_set())
    assert max(entry.crystal.nsites for entry in starter_set()) <= 16


def test_every_crystal_encodes_to_its_space_group_and_formula() -> None:
    fingerprints = set()
    for entry in starter_set():
        gene = encode(entry.crystal)
        assert (gene.space_group_number, gene.formula_pretty) == (entry.space_group_number, entry.formula_pretty)
        assert 2 <= len(gene.elements) <= 3
        assert set(gene.elements) <= CHGNET_ELEMENTS
        fingerprints.add(gene.fingerprint)
    assert len(fingerprints) == len(starter_set())


def test_formation_energies_follow_from_energies_and_references() -> None:
    references = reference_energies()
    for entry in starter_set():
        expected = formation_energy_per_atom(entry.energy_per_atom, entry.crystal.amounts, references)
        # Stored to 1e-6 eV/atom.
        assert entry.formation_energy_per_atom == pytest.approx(expected, abs=2e-6)
        # CaF2 and the rare-earth oxides lie near -4 eV/atom; compounds made under pressure may lie above 0.
        assert -5.0 < entry.formation_energy_per_atom < 1.0


def test_band_gaps_are_measured_and_cited() -> None:
    with_gap = [entry for entry in starter_set() if entry.band_gap is not None]
    assert len(with_gap) >= 150
    for entry in with_gap:
        assert entry.band_gap is not None
        assert 0.05 < entry.band_gap < 15.0
        assert entry.band_gap_method == "experiment"
        assert entry.citation
        assert re.search(r"\((19|20)\d\d\)", entry.citation)
    assert sum("doi:10." in (entry.citation or "") for entry in with_gap) >= 150


def test_without_a_gap_there_is_no_method_or_citation() -> None:
    for entry in starter_set():
        if entry.band_gap is None:
            assert (entry.band_gap_method, entry.band_gap_temperature, entry.citation) == (None, None, None)


@pytest.mark.parametrize(
    ("structure_id", "band_gap", "lattice_constant", "primitive_fraction"),
    # Measured gaps, eV, and PBE lattice constants, Å (Materials Project's conventional cells): CHGNet learned PBE.
    [
        ("starter-GaAs-216", 1.42, 5.75, 4),
        ("starter-MgO-225", 7.83, 4.25, 4),
        ("starter-CsCl-221", 8.3, 4.20, 1),
        ("starter-CaF2-225", 12.1, 5.50, 4),
    ],
)
def test_known_crystals(
    by_id: dict[str, StarterEntry],
    structure_id: str,
    band_gap: float,
    lattice_constant: float,
    primitive_fraction: int,
) -> None:
    entry = by_id[structure_id]
    assert entry.band_gap == band_gap
    # CHGNet's volumes are within a few percent of PBE's.
    assert math.cbrt(entry.crystal.volume * primitive_fraction) == pytest.approx(lattice_constant, rel=0.02)


def test_polytypes_of_one_space_group_are_kept_apart(by_id: dict[str, StarterEntry]) -> None:
    polytypes = [entry for entry in by_id.values() if (entry.formula_pretty, entry.space_group_number) == ("SiC", 186)]
    assert {entry.crystal.nsites for entry in polytypes} == {4, 8, 12}
    assert {entry.band_gap for entry in polytypes} == {3.33, 3.26, 3.02}


@pytest.mark.parametrize("structure_id", ["starter-NaCl-225", "starter-GaAs-216", "starter-ZnO-186"])
def test_relaxed_again_an_entry_keeps_its_energy(by_id: dict[str, StarterEntry], structure_id: str) -> None:
    entry = by_id[structure_id]
    relaxation = relax(entry.crystal)
    assert relaxation.is_usable
    # Forces are converged to 0.05 eV/Å: what is left is below 2 meV/atom.
    assert relaxation.energy_per_atom == pytest.approx(entry.energy_per_atom, abs=0.002)
    assert encode(relaxation.crystal).fingerprint == encode(entry.crystal).fingerprint


def test_header_counts_what_is_there() -> None:
    header = starter_header()
    assert header["n_entries"] == len(starter_set())
    assert header["n_band_gaps"] == sum(entry.band_gap is not None for entry in starter_set())
    assert header["script"] == "stores/starter/make_starter_set.py"
    assert header["units"]["formation_energy_per_atom"] == "eV/atom"


def test_stored_comparison_with_pbe_is_close() -> None:
    comparison = starter_header()["comparison"]
    assert comparison["n_same_gene"] >= 60
    # CHGNet's published error is 0.03 eV/atom, and the references of the elements add to it.
    assert comparison["formation_energy_mae"] < 0.05
    assert comparison["formation_energy_largest_difference"] < 0.3
    assert comparison["volume_mean_relative_difference"] < 0.03


def test_the_file_has_no_time_in_it() -> None:
    assert PATH.read_bytes()[4:8] == bytes(4)


def test_formulas_are_reduced() -> None:
    for entry in starter_set():
        assert Composition(entry.formula_pretty).reduced_formula == entry.formula_pretty
        assert np.all((entry.crystal.frac_coords >= 0.0) & (entry.crystal.frac_coords <= 1.0))
