"""Thermoelectric descriptors from a dense mesh of bands by BoltzTraP2: constant relaxation time, rigid bands.

Source: Madsen, Carrete and Verstraete, Comput. Phys. Commun. 231, 140 (2018), doi:10.1016/j.cpc.2018.05.010. The
electronic fitness function: Xing, Sun, Li, Fan, Zheng and Singh, Phys. Rev. Materials 1, 065405 (2017),
doi:10.1103/PhysRevMaterials.1.065405. BoltzTraP2 is under the GPL: an extra that the user installs, never shipped.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal
from wyloop.models.physics.failures import CalculationFailedError, Failure

if TYPE_CHECKING:
    from ase import Atoms

Array = NDArray[np.float64]
REMEDY = "run deploy/install_boltztrap.sh (it builds BoltzTraP2 26.3.1), or `pip install BoltzTraP2`"
HARTREE, BOHR, BOLTZMANN = 27.211386245988, 0.529177210903, 8.617333262e-5  # eV, Å, eV/K
REACH = 2.0  # eV into the bands; the Fermi function's derivative at 900 K ends within 1 eV
DEPTH = 0.8  # eV into the bands that the chemical potential may lie
CHARGE, ELECTRON_MASS = 1.602176634e-19, 9.1093837015e-31  # C, kg


@dataclass(frozen=True)
class TransportSettings:
    """Temperatures, dopings and how finely bands are interpolated."""

    bands_by: str = "gpaw-bands/1"
    """Protocol whose dense mesh it takes."""
    temperatures: tuple[float, ...] = (300.0, 600.0, 900.0)
    """K."""
    dopings: tuple[float, ...] = (1e18, 1e19, 1e20)
    """Carriers per cm^3, of holes and of electrons each."""
    multiplier: int = 5
    """Points of the interpolation's sphere for each k-point."""
    n_energies: int = 6000
    """Points of the energy axis."""
    max_gap: float = 6.0
    """eV. Above it nobody dopes a crystal."""


@dataclass(frozen=True)
class Transport:
    """Transport at one temperature and doping; means over directions."""

    carrier: Literal["p", "n"]
    temperature: float
    """K."""
    doping: float
    """cm^-3."""
    seebeck: float
    """µV/K."""
    power_factor_over_tau: float
    """W/(m K^2 s)."""
    conductivity_over_tau: float
    """1/(ohm m s)."""
    conductivity_mass: float
    """Conductivity effective mass n e^2 tau / sigma, electron masses."""
    fitness: float
    """(sigma/tau) S^2 / N^(2/3), W^(5/3) m s^(-1/3) K^(-2), N the density of states broadened by the temperature."""


class _Mesh:
    """Bands as BoltzTraP2's own loaders give them."""

    def __init__(self, crystal: Crystal, kpoints: Array, eigenvalues: Array, fermi_level: float, n: float) -> None:
        self.atoms: Atoms = crystal.to_ase()
        self.kpoints = kpoints
        n_spins = len(eigenvalues)
        self.ebands = np.concatenate(list(eigenvalues), axis=1).T / HARTREE
        self.dosweight = 2.0 / n_spins
        self.fermi = fermi_level / HARTREE
        self.nelect = n
        self.mommat = None
        self.magmom = None

    def edges(self) -> tuple[float, float]:
        """Return the edges of valence and conduction bands, Hartree."""
        return float(self.ebands[self.ebands < self.fermi].max()), float(self.ebands[self.ebands >= self.fermi].min())

    def get_lattvec(self) -> Array:
        """Return lattice vectors as columns, Bohr."""
        lattice: Array = np.asarray(self.atoms.cell.array, dtype=float).T / BOHR
        return lattice


def transport(
    crystal: Crystal,
    kpoints: Array,
    eigenvalues: Array,
    *,
    fermi_level: float,
    n_electrons: float,
    settings: TransportSettings | None = None,
) -> list[Transport]:
    """Return the descriptors for every temperature, doping and carrier.

    Args:
        crystal: The cell of the bands.
        kpoints: Irreducible ones of a dense mesh, fractional, shape (n, 3).
        eigenvalues: eV, shape (n_spins, n, n_bands).
        fermi_level: eV, within the gap.
        n_electrons: Of the cell.
        settings: Defaults to `TransportSettings()`.

    Raises:
        CalculationFailedError: BoltzTraP2 is not installed, or the bands are those of a metal.
    """
    if find_spec("BoltzTraP2") is None:
        raise CalculationFailedError(f"BoltzTraP2 is not in this Python environment; {REMEDY}", Failure.MACHINE)
    from BoltzTraP2 import bandlib, fite, sphere  # type: ignore[import-untyped,import-not-found,unused-ignore]  # an extra

    settings = settings or TransportSettings()
    mesh = _Mesh(crystal, kpoints, eigenvalues, fermi_level, n_electrons)
    _check_insulator(mesh)
    equivalences = sphere.get_equivalences(mesh.atoms, mesh.magmom, settings.multiplier * len(kpoints))
    coefficients = fite.fitde3D(mesh, equivalences)
    bands, velocities, _ = fite.getBTPbands(equivalences, coefficients, mesh.get_lattvec())
    edges = mesh.edges()
    around = (edges[0] - REACH / HARTREE, edges[1] + REACH / HARTREE)
    energies, dos, tensor, _ = bandlib.BTPDOS(bands, velocities, erange=around, npts=settings.n_energies)
    made = []
    for temperature in settings.temperatures:
        found = _at_temperature(bandlib, mesh, energies, dos, tensor, temperature)
        for doping in settings.dopings:
            made += [_row(found, temperature, doping, carrier) for carrier in ("p", "n")]
    return made


def _check_insulator(mesh: _Mesh) -> None:
    n_occupied = mesh.nelect / mesh.dosweight
    if abs(n_occupied - round(n_occupied)) > 1e-6:
        raise CalculationFailedError("an odd number of electrons: a metal; expected a gap", Failure.BAD_INPUT)
    below = (mesh.ebands < mesh.fermi).sum(axis=0)
    if below.min() != below.max():
        raise CalculationFailedError("bands cross the Fermi level: a metal; expected a gap", Failure.BAD_INPUT)


def _at_temperature(
    bandlib: Any,  # noqa: ANN401  # a module without types
    mesh: _Mesh,
    energies: Array,
    dos: Array,
    tensor: Array,
    temperature: float,
) -> dict[str, Array]:
    """Return carriers, conductivity, Seebeck coefficient and broadened density of states over chemical potentials."""
    heat = BOLTZMANN * temperature / HARTREE
    valence, conduction = mesh.edges()
    inside = (energies > valence - DEPTH / HARTREE) & (energies < conduction + DEPTH / HARTREE)
    mur, temperatures = energies[inside], np.array([temperature])
    volume = float(abs(np.linalg.det(mesh.get_lattvec())))  # Bohr^3
    count, l0, l1, l2, _ = bandlib.fermiintegrals(
        energies, dos, tensor, mur=mur, Tr=temperatures, dosweight=mesh.dosweight
    )
    sigma, seebeck, _, _ = bandlib.calc_Onsager_coefficients(l0, l1, l2, mur, temperatures, volume)
    x = (energies[None, :] - mur[:, None]) / heat
    kernel = 0.25 / np.cosh(np.clip(x / 2, -300, 300)) ** 2 / heat
    step = energies[1] - energies[0]
    cubic_metres = volume * (BOHR * 1e-10) ** 3
    n_valence = mesh.dosweight * dos[energies < (valence + conduction) / 2].sum() * step
    broadened = mesh.dosweight * (kernel * dos[None, :]).sum(axis=1) * step  # per Hartree and cell
    return {
        "electrons": -count[0] - n_valence,
        "sigma": np.trace(sigma[0], axis1=1, axis2=2) / 3,
        "seebeck": np.trace(seebeck[0], axis1=1, axis2=2) / 3,
        "dos": broadened / (HARTREE * CHARGE) / cubic_metres,
        "volume": np.array(cubic_metres),
    }


def _row(found: dict[str, Array], temperature: float, doping: float, carrier: Literal["p", "n"]) -> Transport:
    density = doping * 1e6  # m^-3
    wanted = density * float(found["volume"]) * (1.0 if carrier == "n" else -1.0)
    electrons = found["electrons"]

    def at(name: str) -> float:
        return float(np.interp(wanted, electrons, found[name]))

    sigma, seebeck = at("sigma"), at("seebeck")
    power = sigma * seebeck**2
    return Transport(
        carrier=carrier,
        temperature=temperature,
        doping=doping,
        seebeck=seebeck * 1e6,
        power_factor_over_tau=power,
        conductivity_over_tau=sigma,
        conductivity_mass=density * CHARGE**2 / sigma / ELECTRON_MASS,
        fitness=power / at("dos") ** (2 / 3),
    )
