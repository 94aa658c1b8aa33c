"""Conditional generation: latent vectors near references and from the prior, moved towards the target, then decoded."""

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wyloop.models.errors import TargetError
from wyloop.models.mpvae.aim import MAX_ELEMENTS, latent_miss, limits_of, property_miss, structure_matches
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import gene_arrays, genes_of
from wyloop.models.mpvae.evaluate import sample_prior
from wyloop.models.mpvae.grammar import Limits
from wyloop.models.mpvae.network import MPVAE
from wyloop.models.mpvae.predict import latent_vectors, predict, property_arrays, raw_outputs
from wyloop.models.mpvae.vocabulary import element_ids
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene

logger = logging.getLogger(__name__)

MAX_ATOMS = 24  # primitive cell
ROUND_SIZE = 1024  # latent vectors decoded at a time
ROUNDS_PER_THOUSAND = 9  # bounds the work, so that the result depends on the seed only and not on the machine's speed
MIN_ROUNDS = 6
N_PARENTS = 512  # references and own finds nearest to the target that are varied
PARENT_SHARE = 0.5
NOISE = (0.15, 0.8)  # range of the noise on a parent, in standard deviations of the prior
TEMPERATURE = (0.5, 1.0)
REFUSED = 1000.0  # added to the distance from the target of genes that are not accepted
N_STEPS, STEP_SIZE, STAY_WEIGHT = 12, 0.08, 0.02  # latent optimisation


@dataclass
class _Found:
    """Distinct genes so far, by fingerprint."""

    genes: dict[str, Gene] = field(default_factory=dict)
    misses: dict[str, float] = field(default_factory=dict)
    """Distance of the prediction from the target, 0 if it meets it."""

    @property
    def n_on_target(self) -> int:
        return sum(miss == 0 for miss in self.misses.values())

    def best(self, n: int) -> list[Gene]:
        """Genes that meet the target in the order found, then the others, nearest first."""
        order = sorted(self.misses, key=lambda fingerprint: self.misses[fingerprint])  # stable
        return [self.genes[fingerprint] for fingerprint in order[:n]]


def generate(
    checkpoint: Checkpoint,
    target: Target,
    n: int,
    *,
    seed: int,
    references: Sequence[Gene] = (),
    exclude: Container[str] = (),
    accept: Callable[[Gene], bool] | None = None,
    max_atoms: int = MAX_ATOMS,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Gene]:
    """Write new genes for a target.

    Space group, crystal system, elements, number of elements and of sites hold for every gene returned. Formation
    energy, band gap and volume are aimed at: genes whose own prediction meets the target come first, near misses fill
    up. What the model can't predict (hull distance, phonons) is left to others.

    Args:
        checkpoint: The model.
        target: What the genes should be.
        n: Genes wanted; fewer come back if a bounded number of draws finds no more.
        seed: The same seed and arguments give the same genes.
        references: Known genes to start from besides the prior; the ones predicted nearest to the target are used. If
            the target leaves the number of elements free, no gene has more of them than all of these.
        exclude: Fingerprints that must not come back.
        accept: A further wish, such as charge neutrality; genes it refuses come last, as near misses do.
        max_atoms: Most atoms in the primitive cell.
        on_progress: Called after each round with the genes on target so far and `n`.

    Raises:
        TargetError: No gene can meet the space groups, elements and sizes of the target.
    """
    network = checkpoint.network
    most_elements = max((len(gene.amounts) for gene in references), default=MAX_ELEMENTS)
    limits = limits_of(target, max_atoms, most_elements)
    if not network.decoder.grammar.space_group_mask(limits).any():
        raise TargetError(f"no space group of target '{target}' has an orbit of at most {limits.max_atoms} atoms")
    generator = torch.Generator().manual_seed(seed)
    parents = _reference_latents(network, target, limits, references)
    found = _Found()
    n_rounds = MIN_ROUNDS + n * ROUNDS_PER_THOUSAND // 1000 if n > 0 else 0
    for index in range(n_rounds):
        latent = _propose(network, target, limits, parents, generator)
        low, high = TEMPERATURE
        temperature = low + (high - low) * float(torch.rand((), generator=generator))
        decoded = network.decoder.decode(latent, limits, temperature=temperature, generator=generator)
        new = {}
        for gene in genes_of(decoded):
            fingerprint = str(gene)  # canonical already
            if (
                fingerprint not in found.genes
                and fingerprint not in exclude
                and structure_matches(target, limits, gene)
            ):
                new[fingerprint] = gene
        found.genes |= new
        for fingerprint, prediction in zip(new, predict(checkpoint, list(new.values())), strict=True):
            is_refused = accept is not None and not accept(new[fingerprint])
            found.misses[fingerprint] = property_miss(target, prediction.values()) + (REFUSED if is_refused else 0.0)
        parents = _with_finds(network, parents, found)
        n_on_target = found.n_on_target
        logger.info("generated round %d/%d, %d/%d genes on target", index + 1, n_rounds, n_on_target, n)
        if on_progress is not None:
            on_progress(min(n_on_target, n), n)
        if n_on_target >= n:
            break
    return found.best(n)


def _reference_latents(network: MPVAE, target: Target, limits: Limits, references: Sequence[Gene]) -> Tensor:
    """Return the latent means of the references predicted nearest to the target, shape (<= N_PARENTS, latent_dim)."""
    references = [gene for gene in references if all(symbol in element_ids() for symbol in gene.amounts)]
    if not references:
        return torch.zeros(0, network.config.latent_dim)
    arrays = gene_arrays(references)
    values = property_arrays(network, raw_outputs(network, arrays))
    columns = zip(
        values.formation_energy.tolist(), values.band_gap.tolist(), values.volume_per_atom.tolist(), strict=True
    )
    names = ("formation_energy_per_atom", "band_gap", "volume_per_atom")
    misses = [
        property_miss(target, dict(zip(names, row, strict=True)))
        + (0.0 if structure_matches(target, limits, gene) else 0.5)
        for row, gene in zip(columns, references, strict=True)
    ]
    nearest = np.argsort(misses, kind="stable")[:N_PARENTS]
    return latent_vectors(network, arrays.take(nearest))[0]


def _propose(network: MPVAE, target: Target, limits: Limits, parents: Tensor, generator: torch.Generator) -> Tensor:
    """Draw latent vectors around parents and from the prior, and move them towards the target."""
    n_children = int(ROUND_SIZE * PARENT_SHARE) if len(parents) else 0
    latent = sample_prior(network, ROUND_SIZE - n_children, generator)
    if n_children:
        chosen = parents[torch.randint(len(parents), (n_children,), generator=generator)]
        spread = (network.prior_std.square() * network.prior_weight.unsqueeze(1)).sum(dim=0).sqrt()
        low, high = NOISE
        size = low + (high - low) * torch.rand(n_children, 1, generator=generator)
        noise = torch.randn(chosen.shape, generator=generator)
        latent = torch.cat([chosen + size * spread * noise, latent])
    return _optimise(network, target, limits, latent)


def _optimise(network: MPVAE, target: Target, limits: Limits, latent: Tensor) -> Tensor:
    """Move latent vectors downhill on their distance from the target, not far from where they started."""
    start = latent.detach()
    moved = start.clone().requires_grad_()
    possible = network.decoder.grammar.space_group_mask(limits)
    optimiser = torch.optim.Adam([moved], lr=STEP_SIZE)
    for _ in range(N_STEPS):
        stay = STAY_WEIGHT * (moved - start).square().sum(dim=1)
        loss = (latent_miss(network, target, possible, moved) + stay).sum()
        (moved.grad,) = torch.autograd.grad(loss, [moved])
        optimiser.step()
    return moved.detach()


def _with_finds(network: MPVAE, parents: Tensor, found: _Found) -> Tensor:
    """Add the latent means of some genes on target, the newest, to the parents; the references stay a while."""
    newest = [gene for name, gene in found.genes.items() if found.misses[name] == 0][-N_PARENTS // 4 :]
    if not newest:
        return parents
    return torch.cat([parents, latent_vectors(network, gene_arrays(newest))[0]])[-2 * N_PARENTS :]
