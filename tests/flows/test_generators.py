"""Generators side by side: our own, controls, another package's, and crystals that came by file."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.flows.rounds import POLICY, contents, fill, open_round, starter
from tests.models.screening.test_outcomes import outcomes
from wyloop.flows.generate import generate_candidates, screen_candidates
from wyloop.flows.generators.interface import Generator, Request
from wyloop.flows.generators.registered import generator, names, own_generators, shares
from wyloop.flows.policy import Policy
from wyloop.flows.train import OUTCOME_HEAD
from wyloop.models.errors import CampaignError, ModelError
from wyloop.models.mpvae.checkpoint import SHIPPED, load_shipped
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.screening.outcomes import fit_outcome_head
from wyloop.models.targets import Target
from wyloop.models.wyckoff.encode import encode
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores import campaigns, candidates, imports, registry
from wyloop.stores.campaigns import CampaignRecord, RoundRecord
from wyloop.stores.connection import Store
from wyloop.stores.funnels import funnel_by_generator
from wyloop.stores.imports import ImportedGene
from wyloop.stores.starter.read import starter_set
from wyloop.stores.training import training_snapshot

FOREIGN = '''
from wyloop.flows.generators.interface import Proposal
from wyloop.models.wyckoff.gene import Gene

class Fixed:
    """Proposes what a list says, known and repeated ones too."""

    name = "fixed"

    def propose(self, request):
        return [Proposal(Gene.parse(text), facts={"place": place}) for place, text in enumerate(LIST)]

def broken():
    raise RuntimeError("no licence")

LIST = %s
'''
TEXTS = ("225 At:b Rb:a", "221 At:b Rb:a", "225 Br:b Og:a", "225 At:b Tl:a")
NEW = tuple(str(canonical(Gene.parse(text))) for text in TEXTS)


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install another package with generators, as far as entry points go."""
    known = str(encode(starter_set()[0].crystal))
    (tmp_path / "foreign_generators.py").write_text(FOREIGN % json.dumps([known, NEW[0], "225 Rb:b At:a", *NEW[1:]]))
    metadata = tmp_path / "foreign-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1\n")
    lines = (
        "fixed = foreign_generators:Fixed",
        "broken = foreign_generators:broken",
        "other = foreign_generators:Fixed",
    )
    (metadata / "entry_points.txt").write_text("[wyloop.generators]\n" + "\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "foreign_generators", raising=False)


def opened(store: Store, policy: Policy, **more: object) -> tuple[CampaignRecord, RoundRecord]:
    """Open a round whose model is the shipped one, with more in its card."""
    campaign, record = open_round(store, policy)
    card = {**load_shipped().card, **more}
    where = {"campaign_id": None, "round_number": None}
    model_id = registry.save_model(store, SHIPPED.read_bytes(), parent_id=None, card=card, snapshot=None, **where)
    return campaign, campaigns.record_step(store, record.round_id, "train", counts={}, model_id=model_id)


def policy_of(n: int, **weights: float) -> Policy:
    return POLICY.model_copy(
        update={"n_candidates": n, "generators": {k.replace("_", "-"): v for k, v in weights.items()}}
    )


@pytest.mark.parametrize(
    ("weights", "n", "expected"),
    [
        ({"a": 0.8, "b": 0.2}, 10, [8, 2]),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 10, [4, 3, 3]),
        ({"a": 0.5, "b": 0.25, "c": 0.25}, 7, [3, 2, 2]),
        ({"a": 0.999, "b": 0.001}, 10, [10, 0]),
        ({"a": 1.0}, 2500, [2500]),
    ],
)
def test_shares_are_exact(weights: dict[str, float], n: int, expected: list[int]) -> None:
    assert list(shares(weights, n).values()) == expected


def test_all_generators_are_known_by_name(foreign: None) -> None:
    assert set(names()) == {"mpvae", "mpvae-perturb", "published", "substitution", "random", "fixed", "broken", "other"}
    assert all(isinstance(one, Generator) for one in own_generators().values())
    assert generator("mattergen") is None
    found = generator("fixed")
    assert found is not None
    assert found.name == "fixed"
    with pytest.raises(CampaignError, match=r"'broken' .*RuntimeError: no licence.*; expected a Generator"):
        generator("broken")
    with pytest.raises(CampaignError, match="no generator named 'other'"):
        generator("other")


def test_each_gets_its_share_and_is_told_apart(database: Store, foreign: None) -> None:
    fill(database)
    policy = policy_of(30, substitution=0.5, random=0.4, fixed=0.1)
    campaign, record = opened(database, policy)
    counts = generate_candidates(database, campaign, record, policy)
    found = candidates.of_round(database, record.round_id)
    assert Counter(one.sampler for one in found) == {"substitution": 15, "random": 12, "fixed": 3}
    assert counts["n_proposed"] == len({one.gene.fingerprint for one in found}) == 30
    told = counts["generators"]
    assert isinstance(told, dict)
    assert told["fixed"] == {"n_asked": 3, "n_proposed": 5, "n_known": 1, "n_duplicates": 0, "n_candidates": 3}
    fixed = [one for one in found if one.sampler == "fixed"]
    assert {str(one.gene) for one in fixed} == set(NEW[:3])
    assert {one.origin["place"] for one in fixed} == {1, 3, 4}
    assert all(one.gene == canonical(one.gene) for one in found)
    unknown = next(one for one in fixed if "Og" in one.gene.elements)
    assert unknown.prediction is None
    assert all(one.prediction is not None for one in found if one is not unknown)
    assert all(one.gene.nsites <= 24 and one.gene.space_group_number >= 195 for one in found if one.sampler != "fixed")

    before = contents(database, "candidates")
    assert generate_candidates(database, campaign, record, policy) == counts
    assert contents(database, "candidates") == before
    campaigns.record_step(database, record.round_id, "generate", counts=counts)
    assert screen_candidates(database, campaign, record, policy)["n_screened"] == 30
    assert candidates.candidate(database, unknown.candidate_id).reason == "the model does not know Og"

    funnels = {one.generator: one for one in funnel_by_generator(database, campaign.campaign_id)}
    assert list(funnels) == ["fixed", "random", "substitution"]
    one = funnels["fixed"]
    assert (one.n_proposed, one.n_unique, one.n_novel, one.n_candidates) == (5, 5, 4, 3)
    assert list(one.passed_screen)[:3] == ["validity", "novelty", "charge_neutrality"]
    assert one.passed_screen["validity"] == 2  # the third was not screened
    assert sum(found.n_candidates for found in funnels.values()) == 30
    assert one.to_json()["n_candidates"] == 3


def test_crystals_from_files_take_part_beside_the_policys_generators(database: Store) -> None:
    fill(database)
    policy = policy_of(5, substitution=1.0)
    campaign, record = opened(database, policy)
    known = training_snapshot(database).rows[0].gene
    crystal = starter("NaCl-225").crystal
    pool = [ImportedGene(campaign.campaign_id, "mattergen", text, crystal, {"row": 1}) for text in NEW[:3]]
    pool.append(ImportedGene(campaign.campaign_id, "mattergen", str(known)))
    imports.add_imports(database, pool)
    imports.add_imports(database, [ImportedGene(campaign.campaign_id, "diffcsp", text) for text in NEW[1:]])
    counts = generate_candidates(database, campaign, record, policy)
    told = counts["generators"]
    assert isinstance(told, dict)
    assert list(told) == ["substitution", "diffcsp", "mattergen"]
    assert told["diffcsp"] == {"n_asked": 3, "n_proposed": 3, "n_known": 0, "n_duplicates": 0, "n_candidates": 3}
    assert told["mattergen"] == {"n_asked": 4, "n_proposed": 4, "n_known": 1, "n_duplicates": 2, "n_candidates": 1}
    (made,) = [one for one in candidates.of_round(database, record.round_id) if one.sampler == "mattergen"]
    assert str(made.gene) == NEW[0]
    assert made.crystal is not None
    assert made.crystal.species == crystal.species
    assert made.origin == {"row": 1}
    rows = imports.imports_for(database, campaign.campaign_id, record.round_id, "mattergen")
    assert [one.outcome for one in rows] == ["candidate", "duplicate", "duplicate", "known"]

    before = contents(database, "candidates", "imports")
    assert generate_candidates(database, campaign, record, policy) == counts
    assert contents(database, "candidates", "imports") == before


def test_what_was_learned_of_failures_is_a_score_more_and_binds_nothing(database: Store) -> None:
    fill(database)
    policy = policy_of(10, substitution=1.0)
    head = fit_outcome_head(outcomes())
    assert head is not None
    campaign, record = opened(database, policy, **{OUTCOME_HEAD: head.to_json()})
    generate_candidates(database, campaign, record, policy)
    screen_candidates(database, campaign, record, policy)
    found = candidates.of_round(database, record.round_id)
    last = [one.verdicts[-1] for one in found]
    assert {verdict.screen for verdict in last} == {"past_outcomes"}
    assert all(0 < (verdict.value or 0) < 1 and "by 256 outcomes" in verdict.reason for verdict in last)
    assert all("past_outcomes" not in one.reason for one in found)
    assert funnel_by_generator(database, campaign.campaign_id)[0].passed_screen["past_outcomes"] <= 10

    useless = head.to_json() | {"auc": 0.5}
    database.database["model_versions"].update_many({}, {"$set": {f"card.{OUTCOME_HEAD}": useless}})
    candidates.set_status(database, [one.candidate_id for one in found], "proposed")
    screen_candidates(database, campaign, record, policy)
    verdicts = [one.verdicts[-1].screen for one in candidates.of_round(database, record.round_id)]
    assert set(verdicts) == {"predicted_stability"}


def test_a_policy_may_name_a_generator_that_comes_by_file(database: Store) -> None:
    fill(database)
    policy = policy_of(10, substitution=0.8, mattergen=0.2)
    campaign, record = opened(database, policy)
    with pytest.raises(CampaignError, match=r"no generator 'mattergen'.*wyloop candidate import FILE"):
        generate_candidates(database, campaign, record, policy)
    imports.add_imports(database, [ImportedGene(campaign.campaign_id, "mattergen", text) for text in NEW])
    counts = generate_candidates(database, campaign, record, policy)
    found = candidates.of_round(database, record.round_id)
    assert Counter(one.sampler for one in found) == {"substitution": 8, "mattergen": 2}
    assert counts["n_proposed"] == 10
    waiting = imports.imports_for(database, campaign.campaign_id, "the next", "mattergen")
    assert [one.fingerprint for one in waiting] == list(NEW[2:])


def request(rows: list[TrainingRow], n: int, *target: str) -> Request:
    return Request(Target.parse(target), n, 3, lambda _: set(), rows, load_shipped())


def test_perturbing_starts_from_what_meets_the_target() -> None:
    rows = [TrainingRow(canonical(Gene.parse(text)), {"band_gap": 5.0, "volume_per_atom": 20.0}) for text in NEW]
    usable = [row for row in rows if "Og" not in row.gene.elements]
    perturbing = own_generators()["mpvae-perturb"]
    found = perturbing.propose(request(usable, 20, "band_gap > 1", "space_group_number >= 195"))
    assert 0 < len(found) <= 20
    assert all(one.gene.space_group_number >= 195 and one.prediction is not None for one in found)
    again = perturbing.propose(request(usable, 20, "band_gap > 1", "space_group_number >= 195"))
    assert [one.gene for one in again] == [one.gene for one in found]
    assert perturbing.propose(request(usable, 20, "band_gap > 9")) == []


def test_the_published_model_needs_its_weights(tmp_path: Path) -> None:
    from wyloop.models.mpvae.published.config import PublishedConfig
    from wyloop.models.mpvae.published.model import PublishedModel
    from wyloop.models.mpvae.published.network import PublishedVAE

    rows = [TrainingRow(canonical(Gene.parse("225 Cl:b Na:a")), {"band_gap": 5.0})]
    with pytest.raises(ModelError, match="WYLOOP_FLOWS_PUBLISHED_WEIGHTS"):
        own_generators()["published"].propose(request(rows, 5, "band_gap > 1"))
    config = PublishedConfig()
    path = tmp_path / "published.safetensors"
    PublishedModel(PublishedVAE(config).state_dict(), config, {}).save(path)
    published = own_generators(path)["published"]
    found = published.propose(request(rows, 5, "band_gap > 1"))
    assert len(found) <= 5  # weights that learned nothing: what comes are genes all the same
    assert all(one.gene == canonical(one.gene) for one in found)
    assert published.propose(request(rows, 5, "band_gap > 9")) == []


def test_controls_have_nothing_to_start_from_in_an_empty_database() -> None:
    for name in ("substitution", "random"):
        assert own_generators()[name].propose(request([], 5, "band_gap > 1")) == []
