"""Write tables.json and operators.npz from PyXtal's crystallographic tables: `python models/wyckoff/make_tables.py`."""

import json
from pathlib import Path

import numpy as np
from pyxtal.symmetry import Group  # type: ignore[import-untyped]  # ships no types

HERE = Path(__file__).parent
TRANSLATION_DENOMINATOR = 24  # every translation in the tables is a multiple of 1/24


def main() -> None:
    """Collect letters, multiplicities, site symmetries, free parameters, operators and normalizer images."""
    tables: dict[str, dict[str, object]] = {}
    operators: dict[str, np.ndarray] = {}
    for number in range(1, 231):
        group = Group(number)
        positions = []
        for position in reversed(group.Wyckoff_positions):
            position.get_site_symmetry()
            free = int(np.linalg.matrix_rank(position.ops[0].affine_matrix[:3, :3]))
            positions.append([position.letter, position.multiplicity, position.site_symm, free])
            matrices = np.array([op.affine_matrix[:3] for op in position.ops])
            matrices[:, :, 3] *= TRANSLATION_DENOMINATOR
            whole = np.rint(matrices).astype(np.int8)
            if not np.allclose(whole, matrices, atol=1e-6):
                raise SystemExit(f"space group {number}{position.letter}: an operator is not a multiple of 1/24")
            operators[f"{number}_{position.letter}"] = whole
        letters = [position[0] for position in positions]
        images = {tuple(row.split()) for row in group.get_alternatives()["Transformed WP"]}
        # Each image is written as the letters that take the places of `letters`, in their order.
        tables[str(number)] = {
            "symbol": group.symbol,
            "point_group": group.point_group,
            "centering": int(
                len(group.Wyckoff_positions[0].ops)
                / len({op.rotation_matrix.tobytes() for op in group.Wyckoff_positions[0].ops})
            ),
            "positions": positions,
            "images": ["".join(image) for image in sorted(images, key=lambda image: [letters.index(x) for x in image])],
        }
    (HERE / "tables.json").write_text(json.dumps(tables, separators=(",", ":")) + "\n")
    np.savez_compressed(HERE / "operators.npz", allow_pickle=False, **operators)


if __name__ == "__main__":
    main()
