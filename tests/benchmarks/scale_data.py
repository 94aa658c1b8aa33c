"""Made-up crystals, genes and candidates in realistic shape and any number, by seed: what the scale benchmark loads.

The shares below (space groups, elements, sizes, gaps, energies) are rounded counts over 19 681 crystals of MP-20 and
MPTS-52; crystals and genes are drawn, none is copied. Coordinates are random: nothing here looks for symmetry in them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene, Orbit, canonical
from wyloop.models.wyckoff.tables import space_group
from wyloop.stores.candidates import CandidateRecord, candidate_id
from wyloop.stores.ingest.structures import SourceStructure


def _shares(text: str) -> dict[str, int]:
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


_OF_GROUPS = _shares("""
    225 139  62 58  139 57  194 49  12 43  166 40  221 38  63 35  123 22  189 20  71 20  164 19  129 19  15 18
    187 17  227 16  2 16  191 16  216 15  148 15  14 15  140 14  38 14  8 11  193 11  65 10  141 10  160 10  1 10
    11 9  127 9  186 8  74 8  44 7  156 7  136 7  36 6
""")
GROUP_SHARES = {int(number): share for number, share in _OF_GROUPS.items()}
"""Space group to per mille of crystals; the rest is spread over all 230."""
ELEMENT_SHARES = _shares("""
    O 377  S 89  H 83  P 81  N 76  F 68  Se 67  Cu 65  Ba 64  Si 63  C 61  Ge 59  Cl 57  K 56  Ni 53  Li 52  Al 51
    B 51  Sr 51  Na 50  Fe 49  Te 48  Mn 47  Co 46  Sn 46  In 45  Mg 45  Sb 43  Ca 42  Zn 41  La 41  Cs 40  Ga 39
    Pd 38  As 37  Rb 37  V 36  Bi 35  Ag 33  Ce 33  I 30  Y 30  Cd 29  Mo 29  Au 28  Sm 28  Nd 28  Br 27  Rh 27
    Pr 27  Pb 27  Pt 26  Ti 25  Tb 25  Yb 24  Eu 23  Dy 23  Er 23  U 23  Tl 23  Ru 23  Ir 22  Ho 22  Cr 22  Nb 21
    Hg 21  Gd 20  Zr 20  Sc 19  Lu 17  Ta 17  Tm 17  W 15  Hf 12  Os 10  Re 9  Th 9  Be 5  Pm 4  Np 4  Tc 4  Pu 4
""")
"""Element to per mille of crystals that have it."""
N_ELEMENTS_SHARES = (1, 20, 57, 17, 5)  # percent of crystals with 1, 2, ... 5 elements
METAL_SHARE = 0.7  # of crystals; the gaps of the others: log-normal around 1.8 eV
N_PROTOTYPES = 4000
MAX_SITES = 52
N_IN_ROUND = 10_000  # candidates
BATCH = 10_000
STATUSES = ("rejected", "passed", "selected", "failed", "off_target", "validated")
STATUS_SHARES = (0.80, 0.15, 0.02, 0.01, 0.01, 0.01)


@dataclass(frozen=True)
class Made:
    """One crystal of the population: its gene and properties (eV/atom, eV, Å^3)."""

    number: int
    gene: Gene
    formation_energy_per_atom: float
    band_gap: float
    volume_per_atom: float

    @property
    def crystal(self) -> Crystal:
        """A crystal of the gene's composition at random places, in the primitive cell."""
        rng = np.random.default_rng(self.number)
        centerings = self.gene.space_group.n_centerings
        species = tuple(el for el, amount in self.gene.amounts.items() for _ in range(max(1, amount // centerings)))
        edge = (self.volume_per_atom * len(species)) ** (1 / 3)
        lattice = edge * (np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3)))
        return Crystal(lattice, species, rng.random((len(species), 3)))

    @property
    def structure(self) -> SourceStructure:
        """The crystal with its labels, as ingest reads it."""
        return SourceStructure(
            "made",
            f"{self.number:07d}",
            self.crystal,
            self.formation_energy_per_atom,
            "mp-pbe",
            self.band_gap,
            "pbe",
            self.gene.space_group_number,
        )

    @property
    def candidate(self) -> CandidateRecord:
        """The gene as a screened candidate of a round of its campaign."""
        rng = np.random.default_rng(self.number)
        status = str(rng.choice(STATUSES, p=STATUS_SHARES))
        number = self.number // N_IN_ROUND
        values = rng.random(4)
        verdicts = (
            Verdict("target", True, float(values[0]), "1", "meets the target by prediction"),
            Verdict("charge_neutrality", True, 0.0, "1", "neutral with common oxidation states"),
            Verdict("novelty", True, 1.0, "1", "new gene"),
            Verdict("synthesizability", status != "rejected", float(values[1]), "1", "likeness to known crystals"),
            Verdict(
                "stability", status != "rejected", float(values[2]) * 0.2, "eV/atom", "above the hull by prediction"
            ),
        )
        return CandidateRecord(
            candidate_id(f"campaign-{number // 10:04d}", str(self.gene)),
            f"campaign-{number // 10:04d}",
            f"campaign-{number // 10:04d}-r{number % 10 + 1}",
            number % 10 + 1,
            self.gene,
            Prediction(
                self.formation_energy_per_atom, 0.08, self.band_gap, 0.3, float(values[3]), self.volume_per_atom
            ),
            verdicts,
            model_id="model-000000000000",
            sampler="mpvae-conditional",
            seed=number,
            status=status,
            reason="every binding screen passed" if status != "rejected" else "stability: above the hull",
            rank=None if status == "rejected" else self.number % N_IN_ROUND,
        )


class Population:
    """Draws crystals by seed; the same seed gives the same crystals, whatever their number."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def draw(self, n: int, *, start: int = 0) -> Iterator[Made]:
        """Yield the crystals number `start` to `start + n`, in order, in memory for one batch of them."""
        for first in range(start // BATCH * BATCH, start + n, BATCH):
            for made in self._batch(first):
                if start <= made.number < start + n:
                    yield made

    def _batch(self, first: int) -> Iterator[Made]:
        rng = np.random.default_rng([self.seed, first])
        chosen = rng.choice(len(self.prototypes), BATCH, p=self._prototype_shares)
        elements = self._elements(rng)
        energies = -rng.gamma(1.9, 0.7, BATCH) + 0.15
        is_metal = rng.random(BATCH) < METAL_SHARE
        gaps = np.where(is_metal, 0.0, np.minimum(np.exp(rng.normal(np.log(1.8), 0.75, BATCH)), 12.0))
        volumes = np.exp(rng.normal(np.log(18.0), 0.35, BATCH))
        for row in range(BATCH):
            number, slots = self.prototypes[chosen[row]]
            symbols = elements[row]
            gene = canonical(
                Gene(number, tuple(sorted(((symbols[i], letter) for i, letter in slots), key=_by_element)))
            )
            yield Made(first + row, gene, float(energies[row]), float(gaps[row]), float(volumes[row]))

    @cached_property
    def prototypes(self) -> list[tuple[int, tuple[tuple[int, str], ...]]]:
        """Space groups with places for the first, second, ... element; the letters in the order of the table."""
        rng = np.random.default_rng([self.seed, 1])
        shares = np.full(230, (1000 - sum(GROUP_SHARES.values())) / 230)
        for number, share in GROUP_SHARES.items():
            shares[number - 1] += share
        found = []
        while len(found) < N_PROTOTYPES:
            n_elements = 1 + int(rng.choice(len(N_ELEMENTS_SHARES), p=np.array(N_ELEMENTS_SHARES) / 100))
            made = _prototype(1 + int(rng.choice(230, p=shares / shares.sum())), n_elements, rng)
            if made is not None:
                found.append(made)
        return found

    @cached_property
    def _prototype_shares(self) -> NDArray[np.float64]:
        weights = 1.0 / (10 + np.arange(N_PROTOTYPES)) ** 0.7  # few prototypes have many members
        return np.asarray(weights / weights.sum())

    @staticmethod
    def _elements(rng: np.random.Generator) -> list[list[str]]:
        """Return five different elements for each of a batch, likelier ones first chosen (Gumbel's trick)."""
        symbols = np.array(list(ELEMENT_SHARES))
        keys = np.log(np.array(list(ELEMENT_SHARES.values()))) + rng.gumbel(size=(BATCH, len(symbols)))
        return [list(map(str, row)) for row in symbols[np.argsort(-keys, axis=1)[:, : len(N_ELEMENTS_SHARES)]]]


def _prototype(
    number: int, n_elements: int, rng: np.random.Generator
) -> tuple[int, tuple[tuple[int, str], ...]] | None:
    group = space_group(number)
    n_orbits = n_elements + int(rng.geometric(0.5)) - 1
    free = {position.letter: position for position in group.positions}
    slots = []
    n_sites = 0
    for orbit in range(n_orbits):
        letters = list(free)
        if not letters:
            return None
        weights = np.array([1.0 / free[letter].multiplicity for letter in letters])
        letter = letters[int(rng.choice(len(letters), p=weights / weights.sum()))]
        n_sites += free[letter].multiplicity
        if free[letter].n_free_parameters == 0:
            del free[letter]
        slots.append((orbit % n_elements, letter))
    if n_sites // group.n_centerings > MAX_SITES:
        return None
    return number, tuple(sorted(slots, key=lambda slot: [p.letter for p in group.positions].index(slot[1])))


def _by_element(orbit: Orbit) -> str:
    return orbit[0]
