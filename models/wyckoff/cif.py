"""Crystals from CIF text and back, fast; symmetric files are expanded to the whole cell."""

import math
import re
from functools import lru_cache

import gemmi
import numpy as np
from numpy.typing import NDArray

from wyloop.models.crystal import Crystal, check_physical
from wyloop.models.errors import StructureError

CELL_TAGS = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
OPERATION_TAGS = (
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
)
SPACE_GROUP_TAGS = (
    "_space_group_name_Hall",
    "_symmetry_space_group_name_Hall",
    "_space_group_name_H-M_alt",
    "_symmetry_space_group_name_H-M",
    "_space_group_IT_number",
    "_symmetry_Int_Tables_number",
)
MAGNETIC_TAGS = (
    "_space_group_symop_magn_operation.xyz",
    "_space_group_symop_magn_operation_xyz",
    "_space_group_symop.magn_operation_xyz",
    "_space_group_magn.number_BNS",
    "_space_group_magn_number_BNS",
)
OCCUPANCY_TOLERANCE = 1e-3  # files round 1 to at least three decimals
SAME_SITE = 0.1  # Å; images of one site nearer than this are one atom: files round 1/3 to 0.3333
SYMBOL = re.compile(r"[A-Za-z]+")


def parse_cif(text: str) -> Crystal:
    """Read the first data block of a CIF that holds atoms.

    Args:
        text: CIF text, in P1 or with symmetry operations or a space group.

    Returns:
        The whole cell, a along x.

    Raises:
        StructureError: No readable block, cell or sites; a site is partially occupied, of no element, without numbers
            for coordinates, on top of another, or has only magnetic symmetry. The site is named.
    """
    block = _structure_block(text)
    lattice = _lattice(block)
    labels, species, coords = _sites(block)
    operations = _operations(block, labels[0])
    if len(operations) > 1:
        labels, species, coords = _expand(lattice, labels, species, coords, operations)
    crystal = Crystal(lattice, tuple(species), coords)
    check_physical(crystal, labels)
    return crystal


def write_cif(crystal: Crystal) -> str:
    """Write a crystal as CIF text in P1."""
    lengths = np.linalg.norm(crystal.lattice, axis=1)
    unit = crystal.lattice / lengths[:, None]
    angles = np.degrees(np.arccos(np.clip([unit[1] @ unit[2], unit[0] @ unit[2], unit[0] @ unit[1]], -1, 1)))
    formula = " ".join(f"{element}{amount}" for element, amount in crystal.amounts.items())
    lines = [f"data_{formula.replace(' ', '')}", "_space_group_name_H-M_alt 'P 1'", "_space_group_IT_number 1"]
    lines += [f"_cell_{tag} {value:.8f}" for tag, value in zip(CELL_TAGS, (*lengths, *angles), strict=True)]
    lines += [f"_chemical_formula_sum '{formula}'", f"_cell_volume {crystal.volume:.8f}"]
    lines += ["loop_", " _space_group_symop_operation_xyz", "  'x, y, z'", "loop_"]
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    lines += [f" _atom_site_{column}" for column in columns]
    for index, (element, (x, y, z)) in enumerate(zip(crystal.species, crystal.frac_coords % 1.0, strict=True)):
        lines.append(f"  {element}{index} {element} {x:.8f} {y:.8f} {z:.8f} 1")
    return "\n".join(lines) + "\n"


def _structure_block(text: str) -> gemmi.cif.Block:
    try:
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise StructureError(
            f"not a CIF: {' '.join(str(error).split())}; expected a data block with cell and sites"
        ) from error
    for block in document:
        if block.find_loop("_atom_site_fract_x").get_loop() is not None or block.find_value("_atom_site_fract_x"):
            return block
    raise StructureError(
        f"CIF with {len(document)} data blocks and no _atom_site_fract_x; expected atoms with coordinates"
    )


def _lattice(block: gemmi.cif.Block) -> NDArray[np.float64]:
    values = [gemmi.cif.as_number(block.find_value(f"_cell_{tag}") or "?") for tag in CELL_TAGS]
    for tag, value in zip(CELL_TAGS, values, strict=True):
        limit = math.inf if tag.startswith("length") else 180.0
        if not 0.0 < value < limit:
            raise StructureError(f"_cell_{tag} is {block.find_value(f'_cell_{tag}')}; expected a positive number")
    matrix = np.array(gemmi.UnitCell(*values).orth.mat.tolist()).T
    if not np.isfinite(matrix).all():
        raise StructureError(f"cell {values} closes no volume; expected lengths in Å and angles in degrees of a cell")
    return matrix


def _sites(block: gemmi.cif.Block) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Return label, element and fractional coordinates of each site listed."""
    columns = [f"_atom_site_fract_{axis}" for axis in "xyz"]
    optional = ["?_atom_site_label", "?_atom_site_type_symbol", "?_atom_site_occupancy"]
    labels, species, coords = [], [], []
    for index, row in enumerate(block.find(columns + optional)):
        label = gemmi.cif.as_string(row[3]) if row.has(3) else f"site {index}"
        symbol = _element(gemmi.cif.as_string(row[4]) if row.has(4) else label)
        if symbol is None:
            raise StructureError(f"site {label}: no element in {row[4] if row.has(4) else label!r}; expected a symbol")
        xyz = [gemmi.cif.as_number(row[column]) for column in range(3)]
        if not all(map(math.isfinite, xyz)):
            raise StructureError(f"site {label}: coordinates {row[0]} {row[1]} {row[2]}; expected three finite numbers")
        if row.has(5):
            occupancy = gemmi.cif.as_number(row[5], 1.0)
            if abs(occupancy - 1.0) > OCCUPANCY_TOLERANCE:
                raise StructureError(f"site {label} ({symbol}): occupancy {row[5]}; expected 1, an ordered crystal")
        labels.append(label)
        species.append(symbol)
        coords.append(xyz)
    if not labels:
        raise StructureError("CIF without complete atom sites; expected _atom_site_fract_x, _y and _z")
    return labels, species, np.array(coords)


@lru_cache(maxsize=4096)
def _element(text: str) -> str | None:
    """Read an element off a type symbol or label such as `Fe3+`, `Fe12` or `D`."""
    match = SYMBOL.match(text)
    if match is None:
        return None
    for length in (2, 1):
        element = gemmi.Element(match[0][:length].capitalize())
        if element.atomic_number > 0:
            return "H" if element.name == "D" else str(element.name)
    return None


def _operations(block: gemmi.cif.Block, first_site: str) -> list[gemmi.Op]:
    for tag in OPERATION_TAGS:
        texts = [gemmi.cif.as_string(text) for text in block.find_values(tag)]
        if texts:
            try:
                return [gemmi.Op(text) for text in texts]
            except RuntimeError as error:
                raise StructureError(f"{tag}: {error}; expected operations such as 'x, y, z'") from error
    for tag in SPACE_GROUP_TAGS:
        value = gemmi.cif.as_string(block.find_value(tag) or "?")
        if value:
            return _named_operations(tag, value)
    for tag in MAGNETIC_TAGS:
        if any(block.find_values(tag)):
            raise StructureError(
                f"site {first_site} and the others: images only by magnetic symmetry ({tag}); expected a space group, "
                "or the whole cell in P1"
            )
    return [gemmi.Op("x,y,z")]


def _named_operations(tag: str, value: str) -> list[gemmi.Op]:
    if value.isdigit():
        group = gemmi.find_spacegroup_by_number(int(value))
    elif tag.endswith("Hall"):
        try:
            return list(gemmi.symops_from_hall(value))
        except RuntimeError as error:
            raise StructureError(f"{tag} is {value!r}: {error}; expected a Hall symbol") from error
    else:
        group = gemmi.find_spacegroup_by_name(value)
    if group is None:
        raise StructureError(f"{tag} is {value!r}; expected a known space group, or symmetry operations in the file")
    return list(group.operations())


def _expand(
    lattice: NDArray[np.float64],
    labels: list[str],
    species: list[str],
    coords: NDArray[np.float64],
    operations: list[gemmi.Op],
) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Apply the operations to each site and keep one of images that coincide."""
    rotations = np.array([op.rot for op in operations]) / gemmi.Op.DEN
    translations = np.array([op.tran for op in operations]) / gemmi.Op.DEN
    all_labels, all_species, all_coords = [], [], []
    for label, symbol, xyz in zip(labels, species, coords, strict=True):
        kept: list[NDArray[np.float64]] = []
        for image in (rotations @ xyz + translations) % 1.0:
            offsets = np.array(kept).reshape(-1, 3) - image
            distances = np.linalg.norm((offsets - np.rint(offsets)) @ lattice, axis=1)
            if not (distances < SAME_SITE).any():
                kept.append(image)
        all_labels += [label] * len(kept)
        all_species += [symbol] * len(kept)
        all_coords += kept
    return all_labels, all_species, np.array(all_coords)
