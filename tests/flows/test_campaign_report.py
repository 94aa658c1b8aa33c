from pathlib import Path

from tests.flows.rounds import CSCL, NACL, POLICY, open_round, propose, starter
from wyloop.flows.campaign_report import mean_error, tell, write_report
from wyloop.flows.dispatch import ask_for
from wyloop.flows.write_back import write_materials
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.targets import Target
from wyloop.stores import calculations, campaigns
from wyloop.stores.connection import Store

PREDICTION = Prediction(-2.2, 0.1, 5.5, 0.5, 0.01, 22.0)


def test_the_report_tells_funnel_parity_stability_and_what_was_learned(database: Store, tmp_path: Path) -> None:
    campaign, record = open_round(database)
    crystal = starter("NaCl-225").crystal
    propose(database, record, NACL, "dispatched", prediction=PREDICTION, rank=1)
    propose(database, record, CSCL, "passed", prediction=PREDICTION)
    identity = ask_for(database, "relaxation", str(NACL), "mlip-screen/1", record, inputs=[crystal])
    result = {"converged": True, "energy_per_atom": -3.4, "formation_energy_per_atom": -2.1}
    calculations.complete(database, identity, result=result, crystal=crystal, core_seconds=7.2)
    write_materials(database, campaign, record, POLICY.model_copy(update={"quarantine_sigma": 1000}))
    campaigns.close_round(database, record.round_id, {})

    story = tell(database, campaign.campaign_id)
    assert story.target == Target.parse(campaign.target)
    (pair,) = story.energies
    assert (pair.predicted, pair.calculated) == (-2.2, -2.1)
    assert mean_error(story.energies) == mean_error(story.energies, 1) != mean_error(story.energies, 2)
    (one,) = story.rounds
    assert dict(one.funnel)["generated"] == 2
    assert one.core_hours == 0.002

    files = write_report(database, campaign.campaign_id, tmp_path / "report")
    assert {path.name for path in files} == {
        "report.md", "report.html", "funnel.svg", "densities.svg", "parity.svg", "stability.svg", "learned.svg",
    }  # fmt: skip
    text = files[0].read_text()
    for title in ("Funnel", "Predicted against calculated", "Stability", "What was learned each round", "By generator"):
        assert f"## {title}" in text
    assert "0.100 eV/atom (1 materials)" in text
    assert "![Funnel](funnel.svg)" in text
    page = files[1].read_text()
    assert page.count("<svg") == 5
    assert "src=" not in page  # one file that needs no other
    again = write_report(database, campaign.campaign_id, tmp_path / "again")
    assert [path.read_text() for path in again] == [path.read_text() for path in files]


def test_a_campaign_without_rounds_has_a_report(database: Store, tmp_path: Path) -> None:
    campaign = campaigns.create_campaign(database, ("band_gap > 1",), {})
    files = write_report(database, campaign.campaign_id, tmp_path)
    assert [path.name for path in files] == ["report.md", "report.html"]
