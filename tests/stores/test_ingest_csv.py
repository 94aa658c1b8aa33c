"""Tables with the faults that users have: what is taken, what is refused with which reason, what ends in one line."""

import bz2
import csv
import gzip
import io
import lzma
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stores.crystals import GAAS, NACL
from wyloop.models.crystal import MAX_SITES
from wyloop.models.errors import IngestError
from wyloop.models.wyckoff.cif import write_cif
from wyloop.stores.connection import Store
from wyloop.stores.ingest.csv import MAX_CIF_LENGTH, ingest_csv, read_csv
from wyloop.stores.ingest.intake import FirstRows, Tally, notes_of
from wyloop.stores.ingest.report import MAX_KEPT, Refusal, refusals_to
from wyloop.stores.ingest.structures import SourceStructure

CIF = write_cif(NACL)
HEADER = ["material_id", "formation_energy_per_atom", "band_gap", "cif"]


def table(rows: list[list[str]], header: list[str] = HEADER, **style: str) -> str:
    text = io.StringIO()
    csv.writer(text, **style).writerows([header, *rows])  # type: ignore[arg-type]
    return text.getvalue()


def read(path: Path) -> tuple[list[SourceStructure], list[Refusal], Tally]:
    tally = Tally()
    rows = list(read_csv(path, tally))
    taken = [row for row in rows if isinstance(row, SourceStructure)]
    return taken, [row for row in rows if isinstance(row, Refusal)], tally


@pytest.mark.parametrize(
    ("style", "encoding"),
    [
        ({}, "utf-8"),
        ({}, "utf-8-sig"),
        ({"delimiter": ";"}, "utf-8"),
        ({"delimiter": "\t"}, "utf-16"),
        ({"delimiter": "|", "lineterminator": "\n"}, "utf-8"),
        ({"lineterminator": "\r\n", "quoting": csv.QUOTE_ALL}, "utf-8"),
    ],
)
def test_separators_line_ends_and_byte_order_marks(tmp_path: Path, style: dict[str, str], encoding: str) -> None:
    cif = CIF.replace("\n", "\r\n") if style.get("lineterminator") == "\r\n" else CIF
    text = table([["a", "-2.1", "5.0", cif], ["b", "-0.4", "", write_cif(GAAS)]], **style)
    (tmp_path / "x.csv").write_text(text, encoding=encoding, newline="")
    taken, refused, _ = read(tmp_path / "x.csv")
    assert refused == []
    assert [(row.source_id, row.formation_energy_per_atom, row.band_gap) for row in taken] == [
        ("a", -2.1, 5.0),
        ("b", -0.4, None),
    ]


def test_empty_lines_and_an_unneeded_column_between(tmp_path: Path) -> None:
    text = table([["a", "-2.1", "5.0", CIF], [], ["b", "-2.2", "5.0", CIF], ["", "", "", ""]])
    (tmp_path / "x.csv").write_text(text + "\n\n")
    taken, refused, tally = read(tmp_path / "x.csv")
    assert (len(taken), refused, tally.ignored) == (2, [], {})
    header = ["Material_ID ", "note", "Band Gap (eV)", "year", "CIF", "e_above_hull"]
    (tmp_path / "y.csv").write_text(table([["a", "x", "1.5", "1999", CIF, "0"]], header))
    taken, _, tally = read(tmp_path / "y.csv")
    assert (taken[0].band_gap, taken[0].formation_energy_per_atom) == (1.5, None)
    assert notes_of(tally, 1) == ("not taken: note, year, e_above_hull",)


def test_units_in_headers_are_converted_or_refused(tmp_path: Path) -> None:
    header = ["id", "formation_energy (meV/atom)", "band_gap [meV]", "cif"]
    (tmp_path / "x.csv").write_text(table([["a", "-500", "1100", CIF]], header))
    (row,), refused, _ = read(tmp_path / "x.csv")
    assert (row.formation_energy_per_atom, row.band_gap, refused) == (pytest.approx(-0.5), pytest.approx(1.1), [])
    header[1] = "formation_energy_per_atom (kJ/mol)"
    (tmp_path / "x.csv").write_text(table([["a", "-500", "1100", CIF]], header))
    with pytest.raises(IngestError, match=r"is in kJ/mol; expected eV/atom or eV or meV/atom; convert it"):
        read(tmp_path / "x.csv")
    header[1] = "formation_energy"  # of an atom or of a formula unit?
    (tmp_path / "x.csv").write_text(table([["a", "-500", "1100", CIF]], header))
    (row,), _, tally = read(tmp_path / "x.csv")
    assert row.formation_energy_per_atom is None
    assert "formation_energy" in tally.ignored


def test_a_row_may_name_its_own_methods(tmp_path: Path) -> None:
    header = [*HEADER, "energy_method", "band_gap_method"]
    rows = [["a", "-1", "2", CIF, "castelli-rpbe", "gllbsc"], ["b", "-1", "2", CIF, "", ""]]
    (tmp_path / "x.csv").write_text(table(rows, header))
    taken, _, _ = read(tmp_path / "x.csv")
    assert [(row.energy_method, row.band_gap_method) for row in taken] == [
        ("castelli-rpbe", "gllbsc"),
        ("mp-pbe", "pbe"),
    ]


@pytest.mark.parametrize("value", ["", "-", "--", "NaN", "None", "n/a", "#N/A", "null", " ? "])
def test_what_says_that_there_is_no_value_is_missing(tmp_path: Path, value: str) -> None:
    (tmp_path / "x.csv").write_text(table([["a", value, "1", CIF]]))
    (row,), refused, tally = read(tmp_path / "x.csv")
    assert (row.formation_energy_per_atom, refused) == (None, [])
    assert tally.missing["formation_energy_per_atom"] == 1


@pytest.mark.parametrize("value", ["inf", "-Infinity", "1e999", "strong", "1.2 eV", "1_000", "--1", "-0,5"])
def test_what_is_no_number_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "x.csv").write_text(table([["a", value, "1", CIF], ["b", "-1", "1", CIF]]))
    taken, (refused,), _ = read(tmp_path / "x.csv")
    assert [row.source_id for row in taken] == ["b"]
    assert (refused.identity, refused.field, refused.value) == ("a", "formation_energy_per_atom", value)
    assert refused.expected == "a finite number"


def test_decimal_commas_are_read_where_they_part_nothing_else(tmp_path: Path) -> None:
    rows = [["a", "-0,5", "1,25", CIF], ["b", "-0.5", "1", CIF], ["c", "1,234,5", "1", CIF], ["d", "1.234,5", "1", CIF]]
    (tmp_path / "x.csv").write_text(table(rows, delimiter=";"))
    taken, refused, tally = read(tmp_path / "x.csv")
    assert [(row.formation_energy_per_atom, row.band_gap) for row in taken] == [(-0.5, 1.25), (-0.5, 1.0)]
    assert [(one.identity, one.value) for one in refused] == [("c", "1,234,5"), ("d", "1.234,5")]
    assert "decimal commas were read as points in 1 rows" in notes_of(tally, 4)


def test_latin_1_in_a_text_is_refused_and_elsewhere_no_matter(tmp_path: Path) -> None:
    header = [*HEADER, "citation", "comment"]
    rows = [
        ["a", "-1", "1", CIF, "Müller", ""],
        ["b", "-1", "1", "# Å\n" + CIF, "", "größer"],
        ["ü", "-1", "1", CIF, "", ""],
        ["c", "-1", "1", CIF, "", ""],
    ]
    (tmp_path / "x.csv").write_text(table(rows, header), encoding="latin-1")
    taken, refused, _ = read(tmp_path / "x.csv")
    assert [row.source_id for row in taken] == ["b", "c"]
    assert [(one.identity, one.field, one.value) for one in refused] == [
        ("a", "citation", "Müller in another encoding"),
        ("ü", "material_id", "ü in another encoding"),
    ]
    assert refused[0].remedy == "save the file as UTF-8"


def test_crystals_at_fault_are_refused_by_themselves(tmp_path: Path) -> None:
    deuterium = write_cif(NACL).replace("Cl1 Cl", "D1 D").replace("Cl", "D")
    faults = {
        "partial": CIF.replace(" 1\n", " 0.5\n"),
        "overlap": CIF.replace("0.50000000 0.50000000 0.50000000", "0.01000000 0.00000000 0.00000000"),
        "no cell": "\n".join(line for line in CIF.splitlines() if "_cell_length" not in line),
        "no sites": CIF.split("loop_\n _atom_site")[0],
        "cell zero": CIF.replace("_cell_length_a ", "_cell_length_a 0 #"),
        "not a cif": "Na Cl 5.64",
        "no element": CIF.replace("Na0 Na", "Xx0 Xx"),
        "huge": "#" * (MAX_CIF_LENGTH + 1) + "\n" + CIF,
        "nothing": "",
        "many sites": CIF + "\n".join(f"  Na{i} Na 0 0 {i / 9999:.4f} 1" for i in range(MAX_SITES)),
    }
    rows = [[name, "-1", "1", cif] for name, cif in faults.items()]
    (tmp_path / "x.csv").write_text(table([["d", "-1", "1", deuterium], *rows]))
    taken, refused, _ = read(tmp_path / "x.csv")
    assert [(row.source_id, row.crystal.amounts) for row in taken] == [("d", {"H": 1, "Na": 1})]
    assert [one.identity for one in refused] == list(faults)
    assert {one.field for one in refused} == {"cif"}
    told = {one.identity: one.value for one in refused}
    assert "occupancy" in told["partial"]
    assert "apart" in told["overlap"]
    assert "_cell_length_a" in told["no cell"]
    assert told["many sites"] == f"{MAX_SITES + 2} sites"


def test_a_quote_that_is_never_closed_costs_the_rest_of_the_file(tmp_path: Path) -> None:
    text = table([["a", "-1", "1", CIF]]) + 'b,-1,1,"data_x\nc,-1,1,x\n' * 1
    (tmp_path / "x.csv").write_text(text)
    taken, refused, _ = read(tmp_path / "x.csv")
    assert [row.source_id for row in taken] == ["a"]
    assert [(one.identity, one.field) for one in refused] == [("b", "cif")]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_files(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "x.csv.gz").write_bytes(pack(table([[f"r{i}", "-1", str(i), CIF] for i in range(50)]).encode()))
    taken, refused, tally = read(tmp_path / "x.csv.gz")
    assert (len(taken), refused, tally.share_read) == (50, [], 1.0)


def test_a_packed_file_that_is_cut_off_keeps_what_was_read(tmp_path: Path) -> None:
    packed = gzip.compress(table([[f"r{i}", "-1", str(i), CIF] for i in range(400)]).encode())
    (tmp_path / "x.csv.gz").write_bytes(packed[: len(packed) // 2])
    taken, refused, tally = read(tmp_path / "x.csv.gz")
    assert 0 < len(taken) < 400
    assert 0 < tally.share_read <= 1
    assert [(one.identity, one.expected) for one in refused] == [("rest of the file", "readable CSV")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty; expected a CSV file with a header row"),
        (b"\n\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"a,b\n1,2\n", "has the columns a, b; expected also one of material_id.* and one of cif"),
        (b"material_id,band_gap\n", "expected also one of cif"),
        (b"\x89PNG\r\n\x1a\nxx", "is an image"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"\x00\x01\x02\x03\n", "is no text in UTF-8"),
        (b"\xfc,\xe4\n", "is no text in UTF-8"),
        (b"\x1f\x8bnothing", "can't read"),
    ],
)
def test_a_file_that_is_no_table_ends_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(IngestError, match=told) as caught:
        read(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "x.csv") in str(caught.value)


def test_a_zip_a_folder_and_no_permission_end_in_one_line(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("x.csv", table([["a", "-1", "1", CIF]]))
    with pytest.raises(IngestError, match=r"is a zip archive or an Excel workbook; .* unpack it or save it as that"):
        read(tmp_path / "x.zip")
    with pytest.raises(IngestError, match="Is a directory"):
        read(tmp_path)
    (tmp_path / "x.csv").write_text(table([["a", "-1", "1", CIF]]))
    (tmp_path / "x.csv").chmod(0o000)
    with as_nobody(), pytest.raises(IngestError, match="Permission denied"):
        read(tmp_path / "x.csv")


def test_a_header_alone_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(",".join(HEADER) + "\n")
    assert read(tmp_path / "x.csv")[:2] == ([], [])


def test_a_file_that_fails_leaves_nothing_behind_and_rows_before_a_break_stay(ingested: Store, tmp_path: Path) -> None:
    text = table([[f"r{i}", "-1", str(i), CIF] for i in range(1200)])
    packed = gzip.compress(text.encode())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    with refusals_to(tmp_path / "report.csv") as on_refusal:
        report = ingest_csv(ingested, tmp_path / "cut.csv.gz", on_refusal=on_refusal)
    assert 0 < report.n_added < 1200
    assert ingested.database["structures"].count_documents({}) == report.n_added
    written = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert [(row["row"], row["identity"]) for row in written] == [(str(report.n_rows), "rest of the file")]
    (tmp_path / "cut.csv.gz").write_bytes(packed)
    again = ingest_csv(ingested, tmp_path / "cut.csv.gz")
    assert (again.n_added, again.n_unchanged, again.n_updated) == (1200 - report.n_added, report.n_added, 0)


def test_refusals_without_end_are_counted_not_kept(ingested: Store, tmp_path: Path) -> None:
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *([f"r{i}", "-1", "1", "x"] for i in range(MAX_KEPT + 50))])
    told: list[Refusal] = []
    report = ingest_csv(ingested, tmp_path / "x.csv", on_refusal=told.append)
    assert (len(report.refused), report.n_refused, len(told)) == (MAX_KEPT, MAX_KEPT + 50, MAX_KEPT + 50)
    with pytest.raises(IngestError, match="can't write"), refusals_to(tmp_path / "none" / "report.csv"):
        pass


def test_first_rows_tells_where_an_identity_came_first() -> None:
    rows = FirstRows()
    assert [rows.first_row(name, number) for number, name in enumerate("abacb", start=1)] == [1, 2, 1, 4, 2]
    rows.close()


@contextmanager
def as_nobody() -> Iterator[None]:
    """Be a user without rights for a moment, where the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
