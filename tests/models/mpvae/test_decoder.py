"""Every decoded gene is valid, whatever the weights and the latent vectors."""

import numpy as np
import pytest
import torch

from wyloop.models.mpvae.checkpoint import Checkpoint, new_network
from wyloop.models.mpvae.data import Batch, TrainingRow, gene_arrays, genes_of
from wyloop.models.mpvae.grammar import Limits
from wyloop.models.mpvae.predict import latent_vectors
from wyloop.models.mpvae.vocabulary import element_ids
from wyloop.models.wyckoff.gene import Gene

from .conftest import TINY


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
def test_untrained_network_decodes_only_valid_genes(temperature: float) -> None:
    network, generator = new_network(TINY, seed=3), torch.Generator().manual_seed(0)
    latent = 3 * torch.randn(1000, TINY.latent_dim, generator=generator)
    genes = genes_of(network.decoder.decode(latent, Limits(), temperature=temperature, generator=generator))
    assert len(genes) == 1000
    assert all(gene.nsites <= 24 and len(gene.amounts) <= 8 for gene in genes)
    if temperature == 5.0:
        assert len({gene.space_group_number for gene in genes}) > 150
        assert len({str(gene) for gene in genes}) > 950


def test_every_space_group_can_be_decoded() -> None:
    network, generator = new_network(TINY, seed=1), torch.Generator().manual_seed(1)
    for number in range(1, 231):
        limits = Limits(space_groups=frozenset({number}), max_atoms=12)
        latent = torch.randn(2, TINY.latent_dim, generator=generator)
        genes = genes_of(network.decoder.decode(latent, limits, temperature=2.0, generator=generator))
        assert {gene.space_group_number for gene in genes} == {number}


def test_limits_on_elements_are_kept() -> None:
    ids = element_ids()
    limits = Limits(
        space_groups=frozenset(range(195, 231)),
        allowed=frozenset(ids[symbol] for symbol in ("Ga", "As", "N", "In")),
        required=frozenset(ids[symbol] for symbol in ("Ga", "As")),
        min_elements=2,
        max_elements=3,
    )
    network, generator = new_network(TINY, seed=2), torch.Generator().manual_seed(2)
    latent = torch.randn(500, TINY.latent_dim, generator=generator)
    genes = genes_of(network.decoder.decode(latent, limits, temperature=1.5, generator=generator))
    assert all(set(gene.elements) <= {"Ga", "As", "N", "In"} for gene in genes)
    assert all(gene.space_group_number >= 195 and len(gene.elements) <= 3 for gene in genes)
    complete = [gene for gene in genes if {"Ga", "As"} <= set(gene.elements)]
    assert len(complete) > 200  # the rest had no room left, and is valid all the same


def test_likelihood_is_that_of_the_decoder(tiny: Checkpoint, rows: list[TrainingRow]) -> None:
    """Draws come as often as the likelihood says: teacher forcing and decoding agree."""
    network = tiny.network
    genes = gene_arrays([rows[0].gene])
    latent = latent_vectors(network, genes)[0]
    with torch.no_grad():
        likelihood = network.decoder.likelihood(latent, Batch.of(genes))
    expected = float(torch.exp(-(likelihood.space_group + likelihood.orbits)))
    generator, n = torch.Generator().manual_seed(0), 4000
    limits = Limits(max_elements=100, max_atoms=1000)
    drawn = network.decoder.decode(latent.expand(n, -1), limits, temperature=1.0, generator=generator)
    share = np.mean([str(gene) == str(rows[0].gene) for gene in genes_of(drawn)])
    assert expected > 0.02
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / n))


def test_cell_of_one_atom_takes_one_orbit() -> None:
    network, generator = new_network(TINY, seed=5), torch.Generator().manual_seed(5)
    latent = torch.randn(300, TINY.latent_dim, generator=generator)
    limits = Limits(space_groups=frozenset({225}), max_atoms=1)
    genes = genes_of(network.decoder.decode(latent, limits, temperature=1.0, generator=generator))
    # Position b is position a by the normalizer, so the canonical genes are all on a.
    assert {tuple(letter for _, letter in gene.orbits) for gene in genes} == {("a",)}


def test_canonical_genes_can_all_be_scored(rows: list[TrainingRow]) -> None:
    network = new_network(TINY, seed=4)
    odd = ["47 Cu:A Cu:A O:a", "1 C:a C:a C:a C:a N:a", "2 Fe:i Fe:i O:a S:b"]
    genes = gene_arrays([row.gene for row in rows] + [Gene.parse(text) for text in odd])
    latent = torch.zeros(len(genes.space_group), TINY.latent_dim)
    with torch.no_grad():
        likelihood = network.decoder.likelihood(latent, Batch.of(genes))
    assert torch.isfinite(likelihood.orbits).all()
    assert torch.isfinite(likelihood.space_group).all()
