"""Conditional generation: latent vectors from the prior given the target and near good finds, decoded and ranked."""

import logging
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wyloop.models.errors import TargetError
from wyloop.models.mpvae.aim import (
    MAX_ELEMENTS,
    Belief,
    latent_miss,
    limits_of,
    probabilities_of_target,
    property_miss,
    structure_matches,
)
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import gene_arrays, genes_of
from wyloop.models.mpvae.grammar import Limits
from wyloop.models.mpvae.network import MPVAE
from wyloop.models.mpvae.predict import Prediction, latent_vectors, predict
from wyloop.models.mpvae.vocabulary import STOP, element_ids, elements
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene

logger = logging.getLogger(__name__)

MAX_ATOMS = 24  # primitive cell
ROUND_SIZE = 1024  # latent vectors decoded at a time
ROUNDS_PER_THOUSAND = 32  # bounds the work, so that the result depends on the seed only and not on the machine's speed
MIN_ROUNDS, MAX_ROUNDS = 6, 60
POOL_FACTOR, POOL_EXTRA = 4.0, 500  # genes on target to choose from: this many times n, or so many more
SHARPNESS = 0.3  # distance from the target, as `latent_miss` has it, that makes a kernel of the prior e times rarer
FOREIGN = 0.3  # distance that each element which is not allowed, or is missing, adds to a kernel's
N_PARENTS = 512  # references and own finds nearest to the target that are varied
PARENT_SHARE = 0.4
NOISE = (0.2, 1.0)  # range of the noise on a parent, in standard deviations of the prior
TEMPERATURE = (0.2, 0.6)
DRY, HEATING, MAX_HEAT = 0.05, 1.3, 3.0  # a round with a smaller share of new genes makes the next ones bolder
STEP_SIZE, STAY_WEIGHT = 0.08, 0.02  # latent optimisation
MAX_OF_CHEMSYS, MAX_OF_PROTOTYPE = 0.01, 0.03  # share of a list; what is beyond comes later
MIN_OF_FAMILY = 4  # genes of a family that any list may hold
PREDICTED_FIELDS = frozenset({"formation_energy_per_atom", "band_gap"})
Known = Callable[[Sequence[str]], Container[str]]
"""Says which of some fingerprints are known, such as a database that is too large to be listed."""


@dataclass
class _Found:
    """Distinct genes so far, by fingerprint."""

    genes: dict[str, Gene] = field(default_factory=dict)
    predictions: dict[str, Prediction] = field(default_factory=dict)
    tiers: dict[str, int] = field(default_factory=dict)
    """0: meets the target by its own prediction; 1: a near miss."""
    refused: dict[str, Gene] = field(default_factory=dict)
    """Genes that the caller does not accept; no prediction is made for them."""

    @property
    def n_on_target(self) -> int:
        return sum(tier == 0 for tier in self.tiers.values())


def generate(
    checkpoint: Checkpoint,
    target: Target,
    n: int,
    *,
    seed: int,
    references: Sequence[Gene] = (),
    exclude: Container[str] | Known = (),
    accept: Callable[[Gene], bool] | None = None,
    max_atoms: int = MAX_ATOMS,
    n_steps: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Gene]:
    """Write new genes for a target, best first.

    Space group, crystal system, elements, number of elements and of sites hold for every gene returned. Formation
    energy, band gap and volume are aimed at: more genes are decoded than wanted, and those come first whose own
    prediction meets the target, by the probability that all of it is met; near misses fill up. One chemical system or
    prototype does not fill the list while there are others. What the model can't predict (hull distance, phonons) is
    left to others.

    Args:
        checkpoint: The model.
        target: What the genes should be.
        n: Genes wanted; fewer come back if a bounded number of draws finds no more.
        seed: The same seed and arguments give the same genes.
        references: Known genes to start from besides the prior; the ones predicted nearest to the target are used. If
            the target leaves the number of elements free, no gene has more of them than all of these.
        exclude: Fingerprints that must not come back, or who is asked for those among the ones just decoded.
        accept: A further wish, such as charge neutrality; genes it refuses come last, after near misses.
        max_atoms: Most atoms in the primitive cell.
        n_steps: Steps of latent optimisation towards the target before decoding; measured no better than none.
        on_progress: Called after each round with a share of `n`, and `n`.

    Raises:
        TargetError: No gene can meet the space groups, elements and sizes of the target.
    """
    network = checkpoint.network
    most_elements = max((len(gene.amounts) for gene in references), default=MAX_ELEMENTS)
    limits = limits_of(target, max_atoms, most_elements)
    if not network.decoder.grammar.space_group_mask(limits).any():
        raise TargetError(f"no space group of target '{target}' has an orbit of at most {limits.max_atoms} atoms")
    generator = torch.Generator().manual_seed(seed)
    parents = _reference_latents(checkpoint, target, limits, references)
    kernels = _kernel_weights(network, target, limits)
    found, heat = _Found(), 1.0
    n_rounds = min(MAX_ROUNDS, MIN_ROUNDS + n * ROUNDS_PER_THOUSAND // 1000) if n > 0 else 0
    n_pool = round(min(POOL_FACTOR * n, n + POOL_EXTRA)) if PREDICTED_FIELDS & set(target.fields) else n
    for index in range(n_rounds):
        latent = _propose(network, kernels.pow(1 / heat), parents, generator)
        if n_steps:
            latent = _optimised(network, target, limits, latent, n_steps)
        low, high = TEMPERATURE
        temperature = heat * (low + (high - low) * float(torch.rand((), generator=generator)))
        decoded = network.decoder.decode(latent, limits, temperature=temperature, generator=generator)
        fresh = {str(gene): gene for gene in genes_of(decoded)}  # canonical already
        known = exclude(list(fresh)) if callable(exclude) else exclude
        new: dict[str, Gene] = {}
        n_before = len(found.genes) + len(found.refused)
        for fingerprint, gene in fresh.items():
            if fingerprint in found.genes or fingerprint in found.refused or fingerprint in known:
                continue
            if structure_matches(target, limits, gene):
                (new if accept is None or accept(gene) else found.refused)[fingerprint] = gene
        found.genes |= new
        for fingerprint, prediction in zip(new, predict(checkpoint, list(new.values())), strict=True):
            found.predictions[fingerprint] = prediction
            found.tiers[fingerprint] = int(property_miss(target, prediction.values()) > 0)
        parents = _with_finds(network, parents, found)
        if len(found.genes) + len(found.refused) - n_before < DRY * ROUND_SIZE:
            heat = min(HEATING * heat, MAX_HEAT)
        n_on_target = found.n_on_target
        logger.info("generated round %d/%d, %d/%d genes on target", index + 1, n_rounds, n_on_target, n_pool)
        if on_progress is not None:
            on_progress(min(n_on_target * n // n_pool, n), n)
        if n_on_target >= n_pool:
            break
    best = _best(target, found, n)
    return best + list(found.refused.values())[: n - len(best)]


def _best(target: Target, found: _Found, n: int) -> list[Gene]:
    """Return the genes by tier, then by the probability of meeting the target, no family too often."""
    if not found.genes:
        return []
    names = list(found.genes)
    tiers = np.array([found.tiers[name] for name in names])
    belief = Belief.of([found.predictions[name] for name in names])
    order = np.lexsort((-probabilities_of_target(target, belief), tiers))
    return _spread([found.genes[names[place]] for place in order], tiers[order].tolist(), n)


def _spread(genes: Sequence[Gene], tiers: Sequence[int], n: int) -> list[Gene]:
    """Keep the order, but put genes of a chemical system or prototype that is full already behind the others."""
    chemsys: Counter[str] = Counter()
    prototypes: Counter[tuple[int, tuple[tuple[str, ...], ...]]] = Counter()
    keys = []
    for place, (gene, tier) in enumerate(zip(genes, tiers, strict=True)):
        prototype = _prototype(gene)
        is_over = chemsys[gene.chemsys] >= max(MIN_OF_FAMILY, MAX_OF_CHEMSYS * n) or prototypes[prototype] >= max(
            MIN_OF_FAMILY, MAX_OF_PROTOTYPE * n
        )
        keys.append((tier, is_over, place))
        if not is_over:
            chemsys[gene.chemsys] += 1
            prototypes[prototype] += 1
    return [genes[place] for _, _, place in sorted(keys)[:n]]


def _prototype(gene: Gene) -> tuple[int, tuple[tuple[str, ...], ...]]:
    """Space group and the letters of each element, whatever the elements are."""
    letters: dict[str, tuple[str, ...]] = {}
    for element, letter in gene.orbits:
        letters[element] = (*letters.get(element, ()), letter)
    return gene.space_group_number, tuple(sorted(letters.values()))


def _reference_latents(checkpoint: Checkpoint, target: Target, limits: Limits, references: Sequence[Gene]) -> Tensor:
    """Return the latent means of the references predicted nearest to the target, shape (<= N_PARENTS, latent_dim)."""
    network = checkpoint.network
    references = [gene for gene in references if all(symbol in element_ids() for symbol in gene.amounts)]
    if not references:
        return torch.zeros(0, network.config.latent_dim)
    misses = [
        property_miss(target, prediction.values()) + (0.0 if structure_matches(target, limits, gene) else 0.5)
        for prediction, gene in zip(predict(checkpoint, references), references, strict=True)
    ]
    nearest = np.argsort(misses, kind="stable")[:N_PARENTS]
    return latent_vectors(network, gene_arrays([references[place] for place in nearest]))[0]


def _propose(network: MPVAE, kernels: Tensor, parents: Tensor, generator: torch.Generator) -> Tensor:
    """Draw latent vectors around parents and from the prior given the target, shape (ROUND_SIZE, latent_dim)."""
    n_children = int(ROUND_SIZE * PARENT_SHARE) if len(parents) else 0
    drawn = torch.multinomial(kernels, ROUND_SIZE - n_children, replacement=True, generator=generator)
    mean, std = network.prior_mean[drawn], network.prior_std[drawn]
    latent = mean + std * torch.randn(mean.shape, generator=generator)
    if not n_children:
        return latent
    chosen = parents[torch.randint(len(parents), (n_children,), generator=generator)]
    spread = (network.prior_std.square() * network.prior_weight.unsqueeze(1)).sum(dim=0).sqrt()
    low, high = NOISE
    size = low + (high - low) * torch.rand(n_children, 1, generator=generator)
    noise = torch.randn(chosen.shape, generator=generator)
    return torch.cat([chosen + size * spread * noise, latent])


@torch.no_grad()
def _kernel_weights(network: MPVAE, target: Target, limits: Limits) -> Tensor:
    """Weigh the prior's kernels by how well what stands at their centres meets the target, shape (n_kernels,).

    The prior is a mixture of kernels at the codes of training genes; given the target, only the weights change, so
    that every draw stays where the model has seen crystals.
    """
    centres = network.prior_mean
    miss = latent_miss(network, target, network.decoder.grammar.space_group_mask(limits), centres)
    if limits.required or len(limits.allowed) < len(elements()):
        decoded = torch.from_numpy(network.decoder.decode(centres, Limits(max_atoms=limits.max_atoms)).element)
        present = torch.zeros(len(centres), len(elements()) + 1, dtype=torch.bool).scatter_(1, decoded, value=True)
        foreign = torch.ones(len(elements()) + 1, dtype=torch.bool)
        foreign[[STOP, *limits.allowed]] = False
        n_wrong = (present & foreign).sum(dim=1) + (~present[:, sorted(limits.required)]).sum(dim=1)
        miss = miss + FOREIGN * n_wrong
    weights: Tensor = network.prior_weight * torch.exp((miss.min() - miss) / SHARPNESS)
    return weights


def _optimised(network: MPVAE, target: Target, limits: Limits, latent: Tensor, n_steps: int) -> Tensor:
    """Move latent vectors downhill on their distance from the target, not far from where they started."""
    start = latent.detach()
    moved = start.clone().requires_grad_()
    possible = network.decoder.grammar.space_group_mask(limits)
    optimiser = torch.optim.Adam([moved], lr=STEP_SIZE)
    for _ in range(n_steps):
        stay = STAY_WEIGHT * (moved - start).square().sum(dim=1)
        loss = (latent_miss(network, target, possible, moved) + stay).sum()
        (moved.grad,) = torch.autograd.grad(loss, [moved])
        optimiser.step()
    return moved.detach()


def _with_finds(network: MPVAE, parents: Tensor, found: _Found) -> Tensor:
    """Add the latent means of some genes on target, the newest, to the parents; the references stay a while."""
    newest = [gene for name, gene in found.genes.items() if found.tiers[name] == 0][-N_PARENTS // 4 :]
    if not newest:
        return parents
    return torch.cat([parents, latent_vectors(network, gene_arrays(newest))[0]])[-2 * N_PARENTS :]
