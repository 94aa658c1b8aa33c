"""A small `vasprun.xml` as VASP writes it, complete enough for pymatgen to read every part that the ingest takes."""

from collections.abc import Sequence

import numpy as np

from wyloop.models.crystal import Crystal


def vasprun_xml(
    crystal: Crystal,
    energy: float,
    *,
    gap: float = 0.6,
    n_electronic: int = 5,
    n_ionic: int = 2,
    nsw: int = 20,
    gga: str = "PE",
    hubbard: float = 0.0,
    cutoff: float = 520.0,
) -> str:
    """Write a finished relaxation, or one stopped at its limits: NELM is 60, the ionic limit `nsw`."""
    species = list(dict.fromkeys(crystal.species))
    symbols = [f"<rc><c>{crystal.species.count(one)}</c><c>{one}</c><c>28.0</c><c>4.0</c>"
               f"<c>PAW_PBE {one} 05Jan2001</c></rc>" for one in species]  # fmt: skip
    atoms = [f"<rc><c>{one}</c><c>{species.index(one) + 1}</c></rc>" for one in crystal.species]
    us = " ".join([f"{hubbard:.1f}"] * len(species))
    u_tags = f'<v type="int" name="LDAUL">{" ".join(["2"] * len(species))}</v><v name="LDAUU">{us}</v>'
    u_tags += f'<v name="LDAUJ">{" ".join(["0.0"] * len(species))}</v>'
    plus_u = f'<i type="logical" name="LDAU">T</i>{u_tags}' if hubbard else ""
    parameters = {"ENMAX": f"{cutoff:.1f}", "EDIFFG": "-0.02", "AEXX": "0.0", "HFSCREEN": "0.0"}
    numbers = {"NELM": 60, "NSW": nsw, "IBRION": 2 if nsw else -1, "ISPIN": 1}
    return "".join(
        [
            '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n',
            '<generator><i name="program" type="string">vasp</i><i name="version" type="string">6.3.2</i></generator>',
            f'<incar><i name="ENCUT">{cutoff:.1f}</i><i type="int" name="NSW">{nsw}</i>{plus_u}</incar>',
            '<kpoints><generation param="Gamma"><v type="int" name="divisions">1 1 1</v></generation>',
            '<varray name="kpointlist"><v>0.0 0.0 0.0</v><v>0.5 0.0 0.0</v></varray>',
            '<varray name="weights"><v>0.5</v><v>0.5</v></varray></kpoints>',
            "<parameters>",
            *(f'<i name="{name}">{value}</i>' for name, value in parameters.items()),
            *(f'<i type="int" name="{name}">{value}</i>' for name, value in numbers.items()),
            f'<i type="string" name="GGA">{gga}</i><i type="logical" name="LHFCALC">F</i>',
            f'<i type="logical" name="LDAU">{"T" if hubbard else "F"}</i><i type="logical" name="LUSE_VDW">F</i>',
            "</parameters>",
            f'<atominfo><atoms>{crystal.nsites}</atoms><types>{len(species)}</types><array name="atoms"><set>',
            *atoms,
            '</set></array><array name="atomtypes"><set>',
            *symbols,
            "</set></array></atominfo>",
            _structure(crystal, "initialpos"),
            *(_ionic_step(crystal, energy, n_electronic) for _ in range(n_ionic - 1)),
            _ionic_step(crystal, energy, n_electronic, _eigenvalues(gap)),
            _structure(crystal, "finalpos"),
            "</modeling>\n",
        ]
    )


def _ionic_step(crystal: Crystal, energy: float, n_electronic: int, eigenvalues: str = "") -> str:
    energies = "".join(f'<i name="{name}"> {energy:.8f} </i>' for name in ("e_fr_energy", "e_wo_entrp", "e_0_energy"))
    forces = _array("forces", np.zeros((crystal.nsites, 3)))
    steps = f"<scstep><energy>{energies}</energy></scstep>" * n_electronic
    stress = _array("stress", np.zeros((3, 3)))
    return (
        f"<calculation>{steps}{_structure(crystal)}{forces}{stress}"
        f"<energy>{energies}</energy>{eigenvalues}</calculation>\n"
    )


def _eigenvalues(gap: float) -> str:
    bands = [(-5.0, 1.0), (5.0, 1.0), (5.0 + gap, 0.0), (9.0, 0.0)]
    rows = "".join(f"<r>{energy:.4f} {occupation:.4f}</r>" for energy, occupation in bands)
    points = "".join(f'<set comment="kpoint {number}">{rows}</set>' for number in (1, 2))
    return f'<eigenvalues><array><set><set comment="spin 1">{points}</set></set></array></eigenvalues>'


def _structure(crystal: Crystal, name: str = "") -> str:
    head = f'<structure name="{name}">' if name else "<structure>"
    return (
        f"{head}<crystal>{_array('basis', crystal.lattice)}</crystal>"
        f"{_array('positions', crystal.frac_coords)}</structure>\n"
    )


def _array(name: str, rows: "Sequence[Sequence[float]] | np.ndarray") -> str:
    lines = "".join(f"<v> {' '.join(f'{value:.8f}' for value in row)} </v>" for row in rows)
    return f'<varray name="{name}">{lines}</varray>'
