"""The ablation command on a few crystals: it fills every cell once, goes on after a kill, and writes its page."""

import csv
import gzip
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def rock_salt(cation: str, anion: str) -> str:
    """Its conventional cell as CIF text in P1."""
    half = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    sites = [(cation, x, y, z) for x, y, z in half] + [(anion, x + 0.5, y, z) for x, y, z in half]
    lines = [f"data_{cation}{anion}", "_symmetry_space_group_name_H-M 'P 1'"]
    lines += [f"_cell_length_{axis} 5.5" for axis in "abc"]
    lines += [f"_cell_angle_{angle} 90" for angle in ("alpha", "beta", "gamma")]
    lines += ["loop_", *(f"_atom_site_{name}" for name in ("type_symbol", "label", "fract_x", "fract_y", "fract_z"))]
    lines += [f"{element} {element}{n} {x % 1} {y} {z}" for n, (element, x, y, z) in enumerate(sites)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Twenty-five rock salts and five intermetallics as such a CSV, with made-up labels."""
    path = tmp_path / "rows.csv.gz"
    cations, anions, metals = ("Li", "Na", "K", "Rb", "Cs"), ("F", "Cl", "Br", "I", "H"), ("Ni", "Fe", "Co", "Cu", "Pd")
    pairs = [(cation, anion, 2.0) for cation in cations for anion in anions] + [(m, "Al", 0.0) for m in metals]
    with gzip.open(path, "wt", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["material_id", "cif", "formation_energy_per_atom", "band_gap"])
        for index, (cation, anion, gap) in enumerate(pairs):
            writer.writerow([f"row-{index}", rock_salt(cation, anion), -gap - index / 100, gap])
    return path


def test_every_cell_once_then_from_the_work_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import bench_ablation  # type: ignore[import-not-found]  # a script's folder, not a package

    page, work = tmp_path / "page.md", tmp_path / "work"
    command = [
        *["bench_ablation.py", "--data", str(file), "--test", str(file), "--steps", "4", "--batch-size", "16"],
        *["--seeds", "1", "--models", "published", "--work", str(work), "--page", str(page), "--write"],
    ]
    monkeypatch.setattr(sys, "argv", command)
    bench_ablation.main()
    assert "0 of 4 cells" in capsys.readouterr().out
    lines = page.read_text().splitlines()
    rows = [line for line in lines if line.startswith(("| yes |", "| no |"))]
    assert [row.split("|")[1:3] for row in rows] == [
        [f" {augment} ", f" {transfer} "] for augment in ("no", "yes") for transfer in ("no", "yes")
    ]
    assert all(row.split("|")[-3].strip() == "4" for row in rows)  # as many steps everywhere, counted
    cells = sorted(work.glob("cell-*.json"))
    assert len(cells) == 4
    figures = json.loads(cells[0].read_text())["figures"]
    assert (figures["all/n_rows"], figures["with_gap/n_rows"]) == (30, 25)
    cells[0].unlink()  # as if killed before the last cell was done
    bench_ablation.main()
    assert "3 of 4 cells" in capsys.readouterr().out
    again = [line for line in page.read_text().splitlines() if line.startswith(("| yes |", "| no |"))]
    assert [row.rsplit("|", 2)[0] for row in again] == [row.rsplit("|", 2)[0] for row in rows]  # but for the time
