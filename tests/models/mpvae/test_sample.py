import pytest
import torch

from wyloop.models.errors import TargetError
from wyloop.models.mpvae.aim import latent_miss, limits_of
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.grammar import Limits
from wyloop.models.mpvae.predict import predict
from wyloop.models.mpvae.sample import MIN_OF_FAMILY, _kernel_weights, _optimised, _spread, generate
from wyloop.models.mpvae.vocabulary import element_ids
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene, canonical


def assert_new_and_canonical(genes: list[Gene], exclude: set[str]) -> None:
    fingerprints = [str(gene) for gene in genes]
    assert len(set(fingerprints)) == len(fingerprints)
    assert exclude.isdisjoint(fingerprints)
    for gene in genes:
        assert canonical(Gene.of(gene.space_group_number, gene.orbits)) == gene
        assert gene.nsites <= 24


def test_generate_meets_the_target(tiny: Checkpoint, rows: list[TrainingRow]) -> None:
    target = Target.parse(["2.0 < band_gap < 5.0", "formation_energy_per_atom < -1.5", "space_group_number >= 143"])
    known = [Gene(225, (("Og", "a"),)), *(row.gene for row in rows)]  # one that the model can't read is left out
    exclude = {str(gene) for gene in known}
    progress: list[tuple[int, int]] = []
    genes = generate(
        tiny,
        target,
        80,
        seed=1,
        references=known,
        exclude=exclude,
        on_progress=lambda done, n: progress.append((done, n)),
    )
    assert len(genes) == 80
    assert_new_and_canonical(genes, exclude)
    assert all(gene.space_group_number >= 143 for gene in genes)
    predictions = predict(tiny, genes)
    hits = [
        target.matches(p.values() | {"space_group_number": g.space_group_number})
        for p, g in zip(predictions, genes, strict=True)
    ]
    assert sum(hits) >= 72
    assert hits == sorted(hits, reverse=True)  # near misses come last
    assert progress[-1][1] == 80


def test_same_seed_same_genes(tiny: Checkpoint) -> None:
    target = Target.parse(["formation_energy_per_atom < -1.0"])
    one, two = (generate(tiny, target, 30, seed=7) for _ in range(2))
    assert one == two
    assert one != generate(tiny, target, 30, seed=8)


def test_refused_genes_come_last(tiny: Checkpoint, rows: list[TrainingRow]) -> None:
    """With a wish for chlorides, they come first; references of two elements keep the number of elements at two."""
    references = [row.gene for row in rows if len(row.gene.amounts) == 2]
    target = Target.parse(["formation_energy_per_atom < -1.0"])
    genes = generate(tiny, target, 40, seed=5, references=references, accept=lambda gene: "Cl" in gene.elements)
    wished = ["Cl" in gene.elements for gene in genes]
    assert sum(wished) >= 20
    assert wished == sorted(wished, reverse=True)
    assert {len(gene.elements) for gene in genes} == {2}


def test_structure_conditions_hold_for_every_gene(tiny: Checkpoint) -> None:
    target = Target.parse(
        ["elements has O", "elements in O, Ti, Sr, Ca", "nelements = 3", "crystal_system = cubic", "nsites <= 8"]
    )
    genes = generate(tiny, target, 40, seed=2)
    assert len(genes) >= 20
    assert_new_and_canonical(genes, set())
    for gene in genes:
        assert "O" in gene.elements
        assert set(gene.elements) <= {"O", "Ti", "Sr", "Ca"}
        assert len(gene.elements) == 3
        assert gene.nsites <= 8
        assert gene.space_group_number >= 195


@pytest.mark.parametrize("text", ["chemsys = O-Ti", "formula_pretty = TiO2", "elements without O", "band_gap = 0"])
def test_other_conditions_hold(tiny: Checkpoint, text: str) -> None:
    genes = generate(tiny, Target.parse([text]), 5, seed=3)
    assert genes
    for gene in genes:
        if text.startswith("chemsys"):
            assert gene.chemsys == "O-Ti"
        elif text.startswith("formula"):
            assert gene.formula_pretty == "TiO2"
        elif text.startswith("elements"):
            assert "O" not in gene.elements


def test_fewer_come_back_when_there_are_no_more(tiny: Checkpoint) -> None:
    """Two elements in a cell of two atoms of group 221 or 225 make a handful of genes."""
    target = Target.parse(["elements in Na, Cl", "space_group_number = 225", "nsites <= 2"])
    genes = generate(tiny, target, 50, seed=4)
    assert {str(gene) for gene in genes} == {"225 Cl:a Na:b"}
    assert generate(tiny, target, 50, seed=4, exclude={"225 Cl:a Na:b"}) == []
    assert generate(tiny, target, 0, seed=4) == []


def test_impossible_targets_are_one_clear_error(tiny: Checkpoint) -> None:
    with pytest.raises(TargetError, match="no space group"):
        generate(tiny, Target.parse(["space_group_number = 230", "nsites <= 3"]), 5, seed=0)
    with pytest.raises(TargetError, match="no gene can meet"):
        generate(tiny, Target.parse(["space_group_number >= 143", "nsites > 30"]), 5, seed=0)
    with pytest.raises(TargetError, match="'Og'"):
        generate(tiny, Target.parse(["elements has Og"]), 5, seed=0)


def test_elements_of_the_target_guide_the_prior(tiny: Checkpoint) -> None:
    """Kernels of the prior whose own crystals hold the wanted elements weigh more than others equally on target."""
    network = tiny.network
    limits = limits_of(Target.parse(["elements has O"]), 24)
    plain = _kernel_weights(network, Target.parse(["nelements >= 2"]), limits_of(Target.parse(["nelements >= 2"]), 24))
    guided = _kernel_weights(network, Target.parse(["elements has O"]), limits)
    decoded = network.decoder.decode(network.prior_mean, Limits(max_atoms=24)).element
    has_oxygen = torch.from_numpy((decoded == element_ids()["O"]).any(axis=1))
    assert has_oxygen.any()
    assert not has_oxygen.all()
    share = float(plain[has_oxygen].sum() / plain.sum())
    assert float(guided[has_oxygen].sum() / guided.sum()) > min(1.5 * share, (1 + share) / 2)


def test_latent_optimisation_moves_the_latent_head_towards_the_target(tiny: Checkpoint) -> None:
    target = Target.parse(["formation_energy_per_atom < -3.0"])
    limits = limits_of(target, 24)
    possible = tiny.network.decoder.grammar.space_group_mask(limits)
    start = torch.randn(50, tiny.config.latent_dim, generator=torch.Generator().manual_seed(0))
    moved = _optimised(tiny.network, target, limits, start, 12)
    before, after = (latent_miss(tiny.network, target, possible, latent).mean() for latent in (start, moved))
    assert after < before


def test_no_family_fills_the_list() -> None:
    """Rock salts come first in the order, but only so many of them at the head."""
    salts = [Gene.of(225, [(c, "a"), (a, "b")]) for c in ("Na", "K", "Rb", "Cs") for a in ("F", "Cl", "Br")]
    others = [Gene.of(221, [("Ni", "a"), (e, "b")]) for e in ("Al", "Ti")]
    ordered = _spread([*salts, *others], [0] * len(salts) + [0, 1], len(salts) + 2)
    assert ordered[:MIN_OF_FAMILY] == salts[:MIN_OF_FAMILY]
    assert ordered[MIN_OF_FAMILY] == others[0]
    assert ordered[-1] == others[1]  # a near miss stays last
    assert sorted(map(str, ordered)) == sorted(map(str, [*salts, *others]))
