import numpy as np
import pytest

from wyloop.models.errors import TargetError
from wyloop.models.mpvae.checkpoint import load_shipped
from wyloop.models.mpvae.data import gene_arrays
from wyloop.models.mpvae.predict import latent_vectors
from wyloop.models.wyckoff.distance import composition_distance, gene_distance
from wyloop.models.wyckoff.gene import Gene, canonical
from wyloop.stores.candidates import CandidateRecord, candidate_id, propose
from wyloop.stores.connection import Store
from wyloop.stores.latents import build_latents, forget_latents, nearest_latents
from wyloop.stores.nearest import MAX_NEIGHBOURS, nearest_genes, similar_compositions
from wyloop.stores.registry import save_model

pytestmark = pytest.mark.expects_findings  # candidates and encodings alone
ELEMENTS = ("Li", "Na", "K", "Mg", "Ca", "Ti", "Ga", "Al", "As", "P", "O", "S", "Cl", "F")
FORMS = ("225 {0}:a {1}:b", "216 {0}:a {1}:c", "221 {0}:a {1}:b {2}:c", "227 {0}:b {1}:c {2}:e", "225 {0}:c {1}:a")


def genes() -> list[Gene]:
    rng = np.random.default_rng(3)
    drawn = [str(rng.choice(FORMS)).format(*rng.choice(ELEMENTS, 3, replace=False)) for _ in range(300)]
    return sorted({canonical(Gene.parse(text)) for text in drawn}, key=str)


@pytest.fixture
def filled(database: Store) -> Store:
    propose(database, [CandidateRecord(candidate_id("k", str(g)), "k", "k-r1", 1, g) for g in genes()])
    return database


@pytest.mark.parametrize("text", ["225 Cl:a Na:b", "221 Ca:a O:c Ti:b", "227 Al:c Mg:b O:e", "194 As:c Ga:a"])
def test_the_nearest_genes_are_those_of_comparing_with_all(filled: Store, text: str) -> None:
    wanted = canonical(Gene.parse(text))
    expected = sorted((round(gene_distance(wanted, gene), 9), str(gene)) for gene in genes())[:7]
    found = nearest_genes(filled, wanted, n=7, collection="candidates")
    assert [round(one.distance, 9) for one in found] == [distance for distance, _ in expected]
    assert found[0].fingerprint == expected[0][1]
    assert found[0].ids == (candidate_id("k", expected[0][1]),)
    assert nearest_genes(filled, wanted, n=3) == []  # no materials


def test_similar_compositions_are_those_of_comparing_with_all(filled: Store) -> None:
    for amounts in ({"Na": 1.0, "Cl": 1.0}, {"Ca": 1.0, "Ti": 1.0, "O": 3.0}):
        of_formula = {gene.formula_pretty: composition_distance(amounts, gene.amounts) for gene in genes()}
        expected = sorted((round(distance, 9), formula) for formula, distance in of_formula.items())[:6]
        found = similar_compositions(filled, amounts, n=6, collection="candidates")
        assert [(round(one.distance, 9), one.formula_pretty) for one in found] == expected
        assert all(one.ids for one in found)


def test_a_number_of_neighbours_has_bounds(filled: Store) -> None:
    for n in (0, MAX_NEIGHBOURS + 1):
        with pytest.raises(TargetError, match=f"{n} neighbours; expected 1 to 1000"):
            nearest_genes(filled, genes()[0], n=n)


def test_the_nearest_in_the_latent_space_are_exact(database: Store) -> None:
    known = genes()[:40]
    rows = [{"structure_id": f"s:{i}", "fingerprint": str(gene)} for i, gene in enumerate(known)]
    database.database["encodings"].insert_many([*rows, {"structure_id": "s:odd", "fingerprint": "225 Pu:a Og:b"}])
    checkpoint = load_shipped()
    model = save_model(
        database, checkpoint.to_bytes(), parent_id=None, card={}, snapshot=None, campaign_id=None, round_number=None
    )
    with pytest.raises(TargetError, match="no latent vectors"):
        nearest_latents(database, model, known[0])
    assert build_latents(database, model) >= 40
    assert build_latents(database, model) == 0
    vectors = latent_vectors(checkpoint.network, gene_arrays(known))[0].numpy()
    distances = np.linalg.norm(vectors - vectors[5], axis=1)
    found = nearest_latents(database, model, known[5], n=4)
    assert [one.fingerprint for one in found] == [str(known[i]) for i in np.argsort(distances)[:4]]
    assert [one.distance for one in found] == pytest.approx(sorted(distances)[:4], abs=1e-4)
    assert found[0].ids == ("s:5",)
    assert forget_latents(database, model) == 1
