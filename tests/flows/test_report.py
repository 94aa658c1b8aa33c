import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client

from tests.flows.rounds import CSCL, NACL, POLICY, VERDICTS, open_round, propose
from tests.flows.test_write_back import finish, relaxed
from wyloop.flows import artifacts, report
from wyloop.flows.write_back import write_materials
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.screening.funnel import SCREENS
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import campaigns
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store

TARGET = ("0.5 < band_gap < 6.0", "formation_energy_per_atom < -0.5")
MGO, KCL = canonical(Gene.parse("225 Mg:a O:b")), canonical(Gene.parse("225 Cl:b K:a"))


@pytest.fixture
def ended(database: Store) -> tuple[Store, CampaignRecord, RoundRecord]:
    """A round with a material on target, one without a gap, one off target, one unstable, and one rejected."""
    campaign, record = open_round(database, target=TARGET)
    propose(database, record, KCL, "dispatched", rank=2, prediction=Prediction(-2.2, 0.1, 5.5, 0.3, 0.0, 30.0))
    relaxed(database, record, NACL, "NaCl-225", -2.1)
    relaxed(database, record, KCL, "KCl-225", -2.2)
    relaxed(database, record, MGO, "MgO-225", -0.2)
    relaxed(database, record, CSCL, "CsCl-221", 0.4)
    unlikely = Verdict("synthesizability", False, 0.1, "1", "unlikely")
    verdicts = tuple(unlikely if verdict.screen == unlikely.screen else verdict for verdict in VERDICTS)
    propose(database, record, canonical(Gene.parse("225 Cl:a K:b Na:c")), "rejected", verdicts=verdicts)
    finish(database, record, "dft", str(NACL), {"energy_per_atom": -3.5, "band_gap": 5.0, "is_direct": True})
    for element in ("Na", "Cl"):
        finish(database, record, "reference", element, {"energy_per_atom": -1.5})
    write_materials(database, campaign, record, POLICY)
    return database, campaign, record


def test_funnel_counts_from_generated_to_on_target(ended: tuple[Store, CampaignRecord, RoundRecord]) -> None:
    database, _, record = ended
    rows = report.funnel(database, record, POLICY)
    assert [(row.stage, row.n_candidates) for row in rows] == [
        ("generated", 5),
        ("validity", 5),
        ("novelty", 5),
        ("charge neutrality", 5),
        ("(anion family)", 5),
        ("synthesizability", 4),
        ("predicted properties", 4),
        ("predicted stability", 4),
        ("selected and built in 3D", 4),
        ("relaxed", 4),
        ("near the hull", 3),
        ("computed by DFT", 1),
        ("on target, all calculated", 1),
    ]
    assert len(rows) == len(SCREENS) + 6
    assert rows[4].note == "recorded only; 5 would pass"


def test_best_materials_are_those_on_target_first(ended: tuple[Store, CampaignRecord, RoundRecord]) -> None:
    database, campaign, record = ended
    best = report.best_materials(database, campaign)
    assert [material.gene for material in best] == [NACL, KCL, MGO]  # on target, gap open, energy missed; CsCl unstable
    assert [material.gene for material in report.best_materials(database, campaign, limit=1)] == [NACL]
    assert report.best_materials(database, campaign, round_number=record.number + 1) == []


def test_a_row_shows_predicted_and_calculated_values(ended: tuple[Store, CampaignRecord, RoundRecord]) -> None:
    database, campaign, _ = ended
    sodium, potassium, _ = report.best_materials(database, campaign)
    assert report.material_row(database, sodium) == {
        "formula": "NaCl",
        "space group": "225",
        "E_f pred": "-",
        "E_f": "-2.10",
        "E_hull": "0.000",
        "gap pred": "-",
        "gap DFT": "5.00",
        "E_f DFT": "-2.00",
        "phonons": "not computed",
    }
    row = report.material_row(database, potassium)
    assert tuple(row) == report.MATERIAL_COLUMNS
    assert (row["E_f pred"], row["gap pred"], row["gap DFT"], row["E_f DFT"]) == ("-2.20", "5.50", "-", "-")


def test_the_summary_is_json_of_the_round(ended: tuple[Store, CampaignRecord, RoundRecord]) -> None:
    database, campaign, record = ended
    summary = report.summarize(database, campaign, record)
    best = report.best_materials(database, campaign)
    assert summary["best_materials"] == [material.material_id for material in best]
    assert campaigns.close_round(database, record.round_id, summary).summary == summary


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_the_round_is_shown_in_prefect(ended: tuple[Store, CampaignRecord, RoundRecord]) -> None:
    database, campaign, record = ended

    @task
    def publish() -> None:
        artifacts.publish(database, campaign, record, report.summarize(database, campaign, record))

    @flow
    def shown() -> None:
        publish()

    shown()
    with get_client(sync_client=True) as client:
        found = {artifact.key: artifact for artifact in client.read_artifacts(limit=200)}
    funnel = found[f"funnel-{record.round_id}"]
    assert funnel.type == "table"
    assert '"generated"' in str(funnel.data)
    best = str(found[f"best-materials-{record.round_id}"].data)
    assert best.index("NaCl") < best.index("KCl") < best.index("MgO")
    summary = found[f"summary-{record.round_id}"]
    assert (summary.type, summary.description) == ("markdown", "Summary of round 1")
    assert "5 candidates generated" in str(summary.data)
    assert "1 materials meet every condition" in str(summary.data)
    assert all(found[key].task_run_id is not None for key in (funnel.key, summary.key))
