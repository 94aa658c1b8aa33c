import pytest

from wyloop.models.errors import TargetError
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import TrainingRow
from wyloop.models.mpvae.perturb import on_target, perturb
from wyloop.models.mpvae.predict import predict
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene, canonical

TARGET = Target.parse(["1.0 < band_gap < 6.0 and formation_energy_per_atom < -1.5 and space_group_number >= 195"])


@pytest.fixture(scope="module")
def references(rows: list[TrainingRow]) -> list[Gene]:
    return on_target(rows, TARGET)


def test_references_meet_the_target_by_their_labels(rows: list[TrainingRow], references: list[Gene]) -> None:
    assert 10 < len(references) < len(rows)
    of = {str(row.gene): row.labels for row in rows}
    for gene in references:
        assert gene.space_group_number >= 195
        assert 1.0 < of[str(gene)]["band_gap"] < 6.0
        assert of[str(gene)]["formation_energy_per_atom"] < -1.5
    titanates = on_target(rows, Target.parse(["elements has Ti, O and nelements = 3 and crystal_system = cubic"]))
    assert {gene.formula_pretty for gene in titanates} == {"MgTiO3", "CaTiO3", "SrTiO3", "BaTiO3"}


def test_perturbed_genes_are_valid_distinct_and_of_the_target(tiny: Checkpoint, references: list[Gene]) -> None:
    known = [Gene(225, (("Og", "a"),)), *references]  # one that the model can't read is passed over
    genes = perturb(tiny, TARGET, 50, seed=1, references=known)
    assert len(genes) == len({str(gene) for gene in genes}) == 50
    for gene in genes:
        assert canonical(Gene.of(gene.space_group_number, gene.orbits)) == gene
        assert gene.space_group_number >= 195
        assert gene.nsites <= 24
    predictions = predict(tiny, genes)
    hits = [
        TARGET.matches(prediction.values() | {"space_group_number": gene.space_group_number})
        for prediction, gene in zip(predictions, genes, strict=True)
    ]
    assert hits == sorted(hits, reverse=True)  # near misses come last
    assert sum(hits) > 10
    assert genes == perturb(tiny, TARGET, 50, seed=1, references=known)
    assert genes != perturb(tiny, TARGET, 50, seed=2, references=known)


def test_without_noise_copies_are_alike_and_known_genes_can_be_excluded(
    tiny: Checkpoint, references: list[Gene]
) -> None:
    genes = perturb(tiny, TARGET, 1000, seed=1, references=references, copies=1, sigma=0.0)
    assert genes == perturb(tiny, TARGET, 1000, seed=9, references=references, copies=3, sigma=0.0)
    assert 5 < len(genes) <= len(references)
    shared = {str(gene) for gene in genes} & {str(gene) for gene in references}
    assert shared  # the tiny model gives some of them back
    rest = perturb(tiny, TARGET, 1000, seed=1, references=references, copies=1, sigma=0.0, exclude=shared)
    assert rest == [gene for gene in genes if str(gene) not in shared]


def test_no_reference_and_no_room_are_errors(tiny: Checkpoint, references: list[Gene]) -> None:
    with pytest.raises(TargetError, match="no known crystal to perturb"):
        perturb(tiny, TARGET, 5, seed=0, references=[])
    with pytest.raises(TargetError, match="no space group"):
        perturb(tiny, Target.parse(["space_group_number = 228"]), 5, seed=0, references=references, max_atoms=2)
