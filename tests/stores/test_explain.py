"""No query of the stores reads a large collection from end to end: its commands are recorded and explained."""

import ast
import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr

from tests.stores.explained import RECORDER, Issued, scans, shape
from wyloop.models.crystal import Crystal
from wyloop.models.errors import WyloopError
from wyloop.models.mpvae.predict import Prediction
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores import calculations, campaigns, candidates, connection
from wyloop.stores.budget import Claim, Limits
from wyloop.stores.candidates import CandidateRecord, candidate_id
from wyloop.stores.connection import Store, connect
from wyloop.stores.documents.base import now
from wyloop.stores.imports import ImportedGene
from wyloop.stores.ingest.intake import Tally
from wyloop.stores.ingest.structures import SourceStructure
from wyloop.stores.saved_queries import SavedQuery
from wyloop.stores.settings import Settings

STORES = Path(connection.__file__).parent
NOT_QUERIES = {
    "backup": "reads everything, once, for an operator",
    "restore": "writes everything, once, for an operator",
    "check": "compares everything, for an operator",
    "check_derived": "compares everything, for an operator",
    "check_links": "compares everything, for an operator",
    "repair": "mends what check found",
    "migrate": "once a schema version",
    "connection": "indexes and schema version",
    "indexes": "indexes",
    "roles": "users",
    "builders.lock": "the lock's own collection",
    "builders.changes": "a change stream, and the locks",
    "builders.run": "no query of its own",
}
"""Modules that are left out, and why."""
SAME_AS = {
    "ingest.cif.ingest_cif": "take_in",
    "ingest.csv.ingest_csv": "take_in",
    "ingest.files.ingest_files": "take_in",
    "ingest.materials_project.ingest_materials_project": "take_in, from the network",
    "ingest.optimade.ingest_optimade": "take_in, from the network",
    "ingest.starter.ingest_starter": "write_structures",
    "ingest.structures.hashes_of": "write_structures",
    "ingest.structures.write_ready": "write_structures",
    "registry.load_checkpoint": "load_weights",
    "promotions.named_checkpoint": "promoted, load_weights",
    "import_crystals.import_crystals": "campaign, add_imports",
    "queries.query_frame": "query",
    "campaigns.finish_campaign": "set_campaign_state, fenced",
    "leases.renew_lease": "called with acquire_lease",
    "leases.fenced": "called with acquire_lease",
    "leases.release_lease": "called with acquire_lease",
    "builders.materials.read_inputs": "build_materials",
}
"""Functions that send what another one sends."""
WHOLE = {
    "training.training_snapshot": "a snapshot is all rows",
    "builders.encodings.build_encodings": "full: all structures",
}
"""Functions that may read a whole collection, since all of it is the answer."""


class World:
    """A small database with a bit of everything."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.gene = Gene.parse("225 Cl:a Na:b")
        self.campaign = campaigns.campaign_id(("band_gap > 1",))
        self.round = campaigns.round_id(self.campaign, 1)
        self.candidate = candidate_id(self.campaign, self.gene.fingerprint)
        self.calculation = calculations.calculation_id(self.gene.fingerprint, "chgnet-relax/1", "0")
        self.weights = _shipped()
        self.model = ""

    def call(self, name: str, *args: object, **options: object) -> Any:  # noqa: ANN401
        """Call a function of the stores by the name of its module and its own."""
        module, function = name.rsplit(".", 1)
        with RECORDER.sender(name):
            made = getattr(importlib.import_module(f"wyloop.stores.{module}"), function)(self.store, *args, **options)
            return list(made) if isinstance(made, Iterator) else made


def _shipped() -> bytes:
    from wyloop.models.mpvae.checkpoint import load_shipped

    return load_shipped().to_bytes()


def structures() -> list[SourceStructure]:
    pairs = (("Na", "Cl", 5.64), ("K", "Cl", 6.3), ("Na", "F", 4.6), ("Mg", "O", 4.2))
    fcc = [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    return [
        SourceStructure(
            "s", a + b, Crystal([[x * edge for x in row] for row in fcc], (a, b), [[0.0] * 3, [0.5] * 3]),  # type: ignore[arg-type]
            -2.0, "mp-pbe", 5.0, "pbe", citation="doi:10.1000/1",
        )
        for a, b, edge in pairs
    ]  # fmt: skip


def record(world: World) -> CandidateRecord:
    prediction = Prediction(-0.6, 0.1, 1.5, 0.2, 0.0, 22.0)
    return CandidateRecord(
        world.candidate, world.campaign, world.round, 1, world.gene, prediction, model_id=world.model
    )


def request(world: World, gene: Gene | None = None) -> calculations.CalculationRecord:
    subject = (gene or world.gene).fingerprint
    identity = calculations.calculation_id(subject, "chgnet-relax/1", "0")
    return calculations.CalculationRecord(
        identity, world.candidate, world.round, "relaxation", subject, "chgnet-relax/1", "0"
    )


def arrays(made: list[SourceStructure]) -> list[SourceStructure]:
    import dataclasses

    import numpy as np

    return [
        dataclasses.replace(
            one, crystal=Crystal(np.array(one.crystal.lattice), one.crystal.species, np.array(one.crystal.frac_coords))
        )
        for one in made
    ]


def everything(world: World) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield the name of every public function, and a call of it, in an order in which they find something."""
    call, target = world.call, Target.parse(["1 < band_gap < 9 and elements has Na and crystal_system = cubic"])
    given = arrays(structures())

    def do(name: str, *args: object, **options: object) -> tuple[str, Callable[[], object]]:
        return name, lambda: call(name, *args, **options)

    yield do("ingest.starter.wants_starter")
    yield do("ingest.structures.write_structures", given)
    yield do("ingest.structures.write_structures", [given[0]])
    yield do("ingest.intake.take_in", given, Tally())
    yield do("ingest.references.relate_energies", ["pbe"])
    yield do("builders.encodings.build_encodings")
    yield do("builders.encodings.build_encodings", full=True)
    yield do("builders.chain.build", "materials")
    yield do("builders.materials.new_genes")
    yield do("builders.materials.build_materials")
    yield do("builders.hulls.build_hulls")
    yield do("competing.hull_entries", ["Cl-Na"])
    yield do("builders.optimade.build_optimade")
    yield do("campaigns.create_campaign", ("band_gap > 1",), {})
    yield do("campaigns.campaign", world.campaign)
    yield do("campaigns.campaigns")
    yield do("campaigns.request_rounds", world.campaign, 1)
    yield do("campaigns.set_campaign_state", world.campaign, "active")
    yield "leases.acquire_lease", lambda: _lease(world)
    yield do("campaigns.open_round", world.campaign)
    yield do("campaigns.round_record", world.round)
    yield do("campaigns.current_round", world.campaign)
    yield do("campaigns.set_definition", world.campaign, {}, rounds=1)
    yield do("campaigns.set_next_advance", world.campaign, now())
    yield do("budget.set_limits", world.campaign, {"all": Limits(jobs=5)})
    yield do("budget.budget", world.campaign)
    claims = [[Claim("calc-explained", "mlip-screen/1", 1.0), Claim("calc-not-run", "mlip-screen/1", 1.0)]]
    yield do("budget.reserve", world.campaign, claims, round_id=world.round)
    yield do("budget.reservations", campaign_id=world.campaign, ids=["calc-explained"])
    yield do("budget.states_of_round", world.round)
    yield do("budget.settle", {"calc-explained": 1.0})
    yield do("budget.release", ["calc-not-run"], reason="explained")
    yield do("budget.contradictions")
    yield do("campaigns.rounds", world.campaign)
    yield do("campaigns.record_step", world.round, "train", counts={})

    def save() -> None:
        snapshot = call("training.training_snapshot")
        world.model = call(
            "registry.save_model", world.weights, parent_id=None, card={}, snapshot=snapshot,
            campaign_id=world.campaign, round_number=1,
        )  # fmt: skip

    yield "training.training_snapshot", save
    yield "registry.save_model", lambda: None
    for name in ("registry.load_weights", "registry.load_snapshot", "registry.model", "model_outcome.came_of"):
        yield name, lambda name=name: call(name, world.model)
    yield do("registry.models")
    yield "promotions.promote", lambda: call("promotions.promote", world.model)
    yield do("promotions.promoted")
    yield do("promotions.promotions")
    yield do("promotions.garbage", keep_newest=0, min_age=timedelta(0), with_referenced=True)
    yield do("promotions.drop_weights", [])
    yield "promotions.roll_back", lambda: _may_fail(lambda: call("promotions.roll_back"))
    yield "candidates.propose", lambda: call("candidates.propose", [record(world)])
    yield "candidates.record_screening", lambda: call("candidates.record_screening", [record(world)])
    yield do("candidates.candidate", world.candidate)
    yield do("candidates.ends", [world.candidate])
    yield do("candidates.of_round", world.round, statuses=("proposed",), limit=5)
    yield do("candidates.set_status", [world.candidate], "passed", only_from=("proposed",))
    yield do("candidates.known_among", [world.gene.fingerprint])
    yield do("candidates.proposed_among", world.campaign, [world.gene.fingerprint], except_round="other")
    yield do("candidates.funnel", world.round)
    yield do("candidates.of_gene", world.gene.fingerprint, statuses=("passed",))
    yield do("funnels.funnel_by_generator", world.campaign, round_number=1)
    yield do("outcomes.outcomes")
    given_import = ImportedGene(world.campaign, "mattergen", world.gene.fingerprint)
    yield do("imports.add_imports", [given_import])
    yield do("imports.imports_for", world.campaign, world.round, "mattergen", limit=5)
    yield do("imports.importing_generators", world.campaign, round_id=world.round)
    yield do("imports.settle_imports", world.round, {"candidate": [given_import]})
    yield "calculations.request_calculation", lambda: call("calculations.request_calculation", request(world))
    yield do("calculations.begin", world.calculation, host="here")
    yield do("calculations.set_firework", world.calculation, 1)
    yield do("calculations.fail", world.calculation, error="x")
    yield do(
        "calculations.complete", world.calculation, crystal=given[0].crystal,
        result={"energy_per_atom": -3.0, "formation_energy_per_atom": -2.0, "converged": True,
                "fingerprint": world.gene.fingerprint, "space_group_number": 225},
    )  # fmt: skip
    yield do("calculation_files.put_files", world.calculation, picture=b"<svg/>")
    yield do("calculation_files.drop_unnamed", world.calculation)
    for name in ("arrays_of", "picture_of", "raw_of"):  # no document names them
        yield (
            f"calculation_files.{name}",
            lambda name=name: _may_fail(lambda: call(f"calculation_files.{name}", world.calculation)),
        )
    yield do("by_hand.add_by_hand", world.gene, {})
    yield do("calculations.calculation", world.calculation)
    yield do("calculations.of_ids", [world.calculation])
    yield do("calculations.of_subjects", [world.gene.fingerprint])
    yield do("calculations.of_candidates", [world.candidate])
    yield do("calculations.of_round", world.round, statuses=("completed",))
    yield do("quarantine.quarantine", world.calculation, ["far off"])
    yield do("quarantine.waiting", candidate_ids=[world.candidate])
    yield do("quarantine.reviewed")
    yield (
        "quarantine.confirmed",
        lambda: call("quarantine.confirmed", calculations.of_ids(world.store, [world.calculation])),
    )
    yield do("quarantine.reject", world.calculation, "no")
    yield do("builders.materials.build_materials", [world.gene.fingerprint])
    yield do("quarantine.accept", world.calculation, "yes")
    yield do("builders.materials.build_materials")
    yield do("builders.materials.build_materials", [world.gene.fingerprint])
    yield do("builders.hulls.build_hulls")
    yield do("builders.optimade.build_optimade", ["Cl-Na"])
    yield do("stories.story", world.candidate)
    yield do("materials.materials", campaign_id=world.campaign, round_number=1)
    yield do("materials.materials", candidate_ids=[world.candidate], is_validated=True)
    yield "materials.material", lambda: call("materials.material", _one(world.store, "materials", "material_id"))
    yield "materials.upsert_material", lambda: _upsert(world)
    for collection in ("materials", "structures", "candidates", "all"):
        for sort in (None, "band_gap", "-formation_energy_per_atom"):
            yield do("queries.query", target, collection=collection, sort=sort, limit=5)
            yield do("queries.rows", Target.parse([]), collection=collection, sort=sort)
        yield do("queries.query", Target.parse(["elements in Na, Cl, K"]), collection=collection)
    yield do("queries.query_crystals", target, collection="structures")
    yield do("queries.pymatgen_structures", "materials", ["x"])
    rows = [{"id": "s:NaCl", "collection": "structures"}]
    yield do("export.export", rows, "jsonl", world.folder / "rows.jsonl")
    yield do("nearest.nearest_genes", world.gene, n=3)
    yield do("nearest.similar_compositions", {"Na": 1.0, "Cl": 1.0}, n=3)
    yield "latents.build_latents", lambda: call("latents.build_latents", world.model)
    yield "latents.nearest_latents", lambda: call("latents.nearest_latents", world.model, world.gene, n=2)
    yield "latents.forget_latents", lambda: call("latents.forget_latents", world.model)
    saved = SavedQuery("mine", target)
    yield do("saved_queries.save_query", saved)
    yield do("saved_queries.saved_query", "mine")
    yield do("saved_queries.saved_queries")
    yield do("saved_queries.ask", saved)
    yield do("saved_queries.remove_query", "mine")
    yield do("status.counts")
    yield do("status.exact_counts", ("structures", "materials"))
    yield do("campaigns.close_round", world.round, {})


def _lease(world: World) -> None:
    token = world.call("leases.acquire_lease", world.campaign, "me", 10.0)
    world.call("leases.renew_lease", world.campaign, token, 10.0)
    world.call("leases.fenced", world.campaign, token, lambda _: None)
    world.call("leases.release_lease", world.campaign, "me")


def _may_fail(call: Callable[[], object]) -> None:
    with suppress(WyloopError):  # what it asked before is what counts
        call()


def _one(store: Store, collection: str, field: str) -> str:
    return str((store.database[collection].find_one({}, {field: 1}) or {})[field])


def _upsert(world: World) -> None:
    found = world.call("materials.material", _one(world.store, "materials", "material_id"))
    world.call("materials.upsert_material", found)


def public_functions() -> set[str]:
    """Return every public function of the stores that takes a store first, read from the source."""
    found = set()
    for path in STORES.rglob("*.py"):
        module = ".".join(path.relative_to(STORES).with_suffix("").parts)
        if module.startswith(("documents.", "migrations.", "starter.")) or module in NOT_QUERIES:
            continue
        for node in ast.parse(path.read_text()).body:
            is_public = isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            if is_public and [one.arg for one in node.args.args[:1]] == ["store"]:
                found.add(f"{module}.{node.name}")
    return found


@pytest.fixture(scope="module")
def explained(mongod: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, set[str], list[Issued]]]:  # noqa: ANN401
    RECORDER.issued.clear()
    store = connect(Settings(uri=SecretStr(mongod.uri), database=f"test_{uuid4().hex[:20]}"))
    world = World(store, tmp_path_factory.mktemp("explained"))
    called = set()
    for name, call in everything(world):
        call()
        called.add(name)
    distinct = {repr((one.by, shape(one.command))): one for one in RECORDER.issued}
    yield store, called, list(distinct.values())
    store.client.drop_database(store.name)
    store.close()


def test_every_public_function_is_called(explained: tuple[Store, set[str], list[Issued]]) -> None:
    missing = public_functions() - explained[1] - SAME_AS.keys()
    assert not missing, f"call these in `everything`, or say in SAME_AS which one sends the same: {sorted(missing)}"


def test_no_query_scans_a_large_collection(explained: tuple[Store, set[str], list[Issued]]) -> None:
    store, _, issued = explained
    assert len(issued) > 100
    faults = []
    for one in issued:
        if one.reads_one or (one.reads_all and one.by in WHOLE):
            continue
        if scanned := scans(store.database, one):
            faults.append(f"{one.by} reads all of {', '.join(scanned)}: {one.command}"[:600])
    assert not faults, "\n".join(faults)


def test_a_query_without_an_index_is_found(explained: tuple[Store, set[str], list[Issued]]) -> None:
    store = explained[0]
    unindexed = Issued("somebody", {"find": "candidates", "filter": {"reason": {"$eq": "x"}}})
    assert scans(store.database, unindexed) == ["candidates"]
    look = {"from": "candidates", "localField": "name", "foreignField": "reason", "as": "found"}
    joined = Issued("somebody", {"aggregate": "campaigns", "pipeline": [{"$lookup": look}]})
    assert scans(store.database, joined) == ["candidates"]
    update = {"q": {"reason": "x"}, "u": {"$set": {"rank": 1}}}
    assert scans(store.database, Issued("somebody", {"update": "candidates", "updates": [update]})) == ["candidates"]
    indexed = Issued("somebody", {"find": "candidates", "filter": {"candidate_id": {"$eq": "x"}}})
    assert scans(store.database, indexed) == []
    assert candidates.known_among(store, []) == set()
