"""Commands that bring in what others generated, and decide on what is implausible."""

from pathlib import Path

import pytest

from tests.platform.conftest import Command
from tests.stores.crystals import NACL
from wyloop.platform.cli import calculation, main
from wyloop.stores import calculations, quarantine
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.campaigns import create_campaign
from wyloop.stores.connection import Store

GENE = "225 Cl:b Na:a"


@pytest.fixture(autouse=True)
def registered() -> None:
    """The command line knows the commands under test."""
    if all(group.name != "calculation" for group in main.app.registered_groups):
        main.app.add_typer(calculation.app, name="calculation")


@pytest.fixture
def quarantined(cli_store: Store) -> str:
    asked = CalculationRecord("calc-1", None, None, "relaxation", GENE, "mlip-screen/1", "h")
    calculations.request_calculation(cli_store, asked)
    result = {"converged": True, "formation_energy_per_atom": -1.0, "energy_per_atom": -2.5, "fingerprint": GENE}
    calculations.complete(cli_store, "calc-1", result=result, crystal=NACL)
    quarantine.quarantine(cli_store, "calc-1", ["9 sigma from the predicted -2 eV/atom"])
    return "calc-1"


def test_a_result_is_reviewed(wyloop: Command, cli_store: Store, quarantined: str) -> None:
    (row,) = wyloop("calculation", "review", "list", "--json").json
    assert (row["calculation_id"], row["reasons"]) == (quarantined, ["9 sigma from the predicted -2 eV/atom"])
    shown = wyloop("calculation", "review", "show", quarantined)
    assert "9 sigma from the predicted -2 eV/atom" in shown.out
    assert "formation_energy_per_atom" in shown.out
    assert wyloop("calculation", "review", "show", quarantined, "--json").json["result"]["converged"] is True
    assert wyloop("calculation", "review", "accept", quarantined).status == 2  # without a reason
    done = wyloop("calculation", "review", "accept", quarantined, "--reason", "known crystal")
    assert done.out == f"{quarantined} is accepted; no candidate waited for it\n"
    assert cli_store.database["materials"].count_documents({"fingerprint": GENE}) == 1
    done = wyloop("calculation", "review", "reject", quarantined, "--reason", "not so", "--json")
    assert done.json == {"calculation_id": quarantined, "review": "rejected", "candidates": {}}
    assert cli_store.database["materials"].count_documents({}) == 0
    assert wyloop("calculation", "review", "list").out == "nothing waits for review\n"
    (row,) = wyloop("calculation", "review", "list", "--all", "--json").json
    assert row["review"] == "rejected"
    assert "expected the relaxation of a candidate" in wyloop("calculation", "review", "again", quarantined).error


def test_crystals_of_another_generator_are_imported(wyloop: Command, cli_store: Store, tmp_path: Path) -> None:
    from pymatgen.io.cif import CifWriter

    (tmp_path / "files").mkdir()
    CifWriter(NACL.to_pymatgen()).write_file(tmp_path / "files" / "a.cif")
    (tmp_path / "files" / "b.cif").write_text("data_x\n_cell_length_a 3\n")
    command = ("candidate", "import", tmp_path / "files", "--generator", "mattergen")
    assert "0 campaigns to import into (none); expected one" in wyloop(*command).error
    campaign = create_campaign(cli_store, ("band_gap > 1",), {}).campaign_id
    done = wyloop(*command, "--report", tmp_path / "refused.csv")
    assert done.out.startswith(f"2 rows of mattergen for {campaign}: 1 new genes, 0 repeated, 1 refused\n  row 2 (")
    assert (tmp_path / "refused.csv").read_text().count("\n") == 2
    again = wyloop(*command, "--campaign", campaign, "--json").json
    assert (again["n_added"], again["n_repeated"], again["campaign_id"]) == (0, 1, campaign)
    assert cli_store.database["imports"].count_documents({"campaign_id": campaign}) == 1
