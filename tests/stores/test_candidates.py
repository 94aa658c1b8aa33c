import json
from dataclasses import replace

import numpy as np
import pytest

from wyloop.models.crystal import Crystal
from wyloop.models.errors import CampaignError, DatabaseError
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.screening.verdict import Verdict
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import calculations, campaigns, candidates, stories
from wyloop.stores.builders.hulls import build_hulls
from wyloop.stores.calculations import CalculationRecord
from wyloop.stores.candidates import CandidateRecord, candidate_id
from wyloop.stores.connection import Store
from wyloop.stores.materials import MaterialRecord, material_id, upsert_material

pytestmark = pytest.mark.expects_findings(  # candidates of their own, without what would lead to them
    "candidate_without_campaign", "candidate_without_round", "candidate_without_model",
    "candidate_validated_without_material",
)  # fmt: skip
CUBE = Crystal(
    3.9 * np.eye(3),
    ("Sr", "Ti", "O", "O", "O"),
    np.array([[0.0] * 3, [0.5] * 3, [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]),
)
PREDICTION = Prediction(-1.5, 0.1, 1.2, 0.3, 0.05, 20.0)
GENES = [
    canonical(Gene.parse(text))
    for text in ("221 O:c Sr:a Ti:b", "216 As:a Ga:c", "225 Cl:b Na:a", "225 Mg:a O:b", "216 S:a Zn:c")
]


def records(campaign: str = "k", number: int = 1) -> list[CandidateRecord]:
    return [
        CandidateRecord(
            candidate_id=candidate_id(campaign, gene.fingerprint),
            campaign_id=campaign,
            round_id=f"{campaign}-r{number}",
            round_number=number,
            gene=gene,
            prediction=PREDICTION,
            model_id="m",
            seed=7,
        )
        for gene in GENES
    ]


def test_proposing_twice_changes_nothing(database: Store) -> None:
    proposed = records()
    assert candidates.propose(database, proposed) == 5
    candidates.set_status(database, [proposed[0].candidate_id], "validated")
    assert candidates.propose(database, [replace(record, seed=8) for record in proposed]) == 0
    found = candidates.candidate(database, proposed[0].candidate_id)
    assert (found.status, found.seed, found.gene, found.prediction) == ("validated", 7, GENES[0], PREDICTION)
    everything = [gene.fingerprint for gene in GENES]
    assert candidates.proposed_among(database, "k", [*everything, "221 Cl:b Cs:a", "not proposed"]) >= set(everything)
    assert candidates.proposed_among(database, "k", everything[:2]) == set(everything[:2])
    assert candidates.proposed_among(database, "k", everything, except_round="k-r1") == set()
    assert candidates.proposed_among(database, "other", everything) == set()


def test_screening_keeps_every_verdict_and_never_takes_back_a_later_status(database: Store) -> None:
    candidates.propose(database, records())
    verdicts = (Verdict("novelty", True, 0.0, "1", "not known"), Verdict("hull", False, 0.3, "eV/atom", "far above"))
    screened = [
        replace(record, verdicts=verdicts, status="passed" if i % 2 else "rejected", rank=10 - i, reason="hull")
        for i, record in enumerate(records())
    ]
    candidates.set_status(database, [screened[4].candidate_id], "dispatched")
    assert candidates.record_screening(database, screened) == 4
    assert candidates.candidate(database, screened[4].candidate_id).status == "dispatched"
    passed = candidates.of_round(database, "k-r1", statuses=["passed"])
    assert [record.candidate_id for record in passed] == [screened[3].candidate_id, screened[1].candidate_id]
    assert passed[0].verdicts == verdicts
    assert candidates.funnel(database, "k-r1") == {
        "proposed": 0, "rejected": 2, "passed": 2, "selected": 0, "dispatched": 1,
        "failed": 0, "quarantined": 0, "unstable": 0, "off_target": 0, "validated": 0,
    }  # fmt: skip
    assert len(candidates.of_round(database, "k-r1", limit=2)) == 2


def test_a_status_moves_only_from_where_it_was_asked(database: Store) -> None:
    candidates.propose(database, records())
    ids = [record.candidate_id for record in records()]
    assert candidates.set_status(database, ids[:2], "selected", only_from=["passed"]) == 0
    assert candidates.set_status(database, ids[:2], "selected", only_from=["proposed"]) == 2
    assert candidates.set_status(database, ids[:2], "selected") == 0
    with pytest.raises(CampaignError, match="'lost'; expected one of proposed"):
        candidates.set_status(database, ids, "lost")


def test_a_candidate_with_a_number_that_is_none_is_refused(database: Store) -> None:
    broken = replace(records()[0], prediction=replace(PREDICTION, band_gap=float("nan")))
    with pytest.raises(DatabaseError, match="not a finite number"):
        candidates.propose(database, [broken])
    assert candidates.proposed_among(database, "k", [gene.fingerprint for gene in GENES]) == set()


def test_the_story_of_a_candidate_is_whole(database: Store) -> None:
    campaign = campaigns.create_campaign(database, ("band_gap > 1",), {"n": 1})
    campaigns.request_rounds(database, campaign.campaign_id, 1)
    opened = campaigns.open_round(database, campaign.campaign_id)
    assert opened is not None
    proposed = records(campaign.campaign_id)
    assert proposed[0].round_id == opened.round_id
    candidates.propose(database, proposed)
    told = stories.story(database, proposed[0].candidate_id)
    assert told["campaign"]["target"] == ["band_gap > 1"]  # type: ignore[index, call-overload]
    assert told["round"]["number"] == 1  # type: ignore[index, call-overload]
    assert told["material"] is None
    assert told["calculations"] == []
    gene = proposed[0].gene
    asked = CalculationRecord("calc-1", "c-0", "r-0", "relaxation", str(gene), "mlip-screen/1", "abc", inputs=(CUBE,))
    calculations.request_calculation(database, asked)  # by another campaign
    calculations.complete(database, "calc-1", result={"energy_per_atom": -3.0, "converged": True}, crystal=CUBE)
    upsert_material(database, MaterialRecord(material_id(str(gene)), str(gene), gene, CUBE, -2.0, "chgnet"))
    build_hulls(database)
    told = stories.story(database, proposed[0].candidate_id)
    assert [calculation["status"] for calculation in told["calculations"]] == ["completed"]  # type: ignore[union-attr, index, call-overload]
    assert told["material"]["hull_id"] == told["hull"]["hull_id"] == "O-Sr-Ti|chgnet"  # type: ignore[index, call-overload]
    assert json.loads(json.dumps(told)) == told
    with pytest.raises(CampaignError, match="no candidate 'c-0'"):
        stories.story(database, "c-0")
