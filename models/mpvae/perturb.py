"""The published sampler on our model: encode known crystals that already meet the target, add noise, decode.

Source: Yamazaki et al. 2025 (WyCryst+), conditional generation; 20 copies of each crystal, noise of 1.4 sigma.
"""

from collections.abc import Container, Sequence

import torch

from wyloop.models.errors import TargetError
from wyloop.models.mpvae.aim import MAX_ELEMENTS, limits_of, property_miss, structure_matches
from wyloop.models.mpvae.checkpoint import Checkpoint
from wyloop.models.mpvae.data import TrainingRow, gene_arrays, genes_of
from wyloop.models.mpvae.predict import latent_vectors, predict
from wyloop.models.mpvae.vocabulary import element_ids
from wyloop.models.targets import Target
from wyloop.models.wyckoff.gene import Gene

COPIES = 20
SIGMA = 1.4
MAX_ATOMS = 24  # primitive cell
BATCH_SIZE = 1024  # latent vectors decoded at a time


def on_target(rows: Sequence[TrainingRow], target: Target) -> list[Gene]:
    """Return the genes of the rows that meet a target by their own labels: the references of `perturb`.

    A row without a label that the target asks for does not meet it.
    """
    return [row.gene for row in rows if target.matches(_values(row))]


def perturb(
    checkpoint: Checkpoint,
    target: Target,
    n: int,
    *,
    seed: int,
    references: Sequence[Gene],
    copies: int = COPIES,
    sigma: float = SIGMA,
    exclude: Container[str] = (),
    max_atoms: int = MAX_ATOMS,
) -> list[Gene]:
    """Decode noisy copies of known genes; valid always, and within the target's space groups, elements and sizes.

    Args:
        checkpoint: The model.
        target: What the genes should be.
        n: Genes wanted; at most `copies` for every reference come, fewer if some are alike.
        seed: The same seed gives the same genes.
        references: Known crystals that meet the target, such as `on_target` finds; those with an element that the model
            does not know are passed over.
        copies: Noisy copies of each reference.
        sigma: Standard deviation of the noise, in latent units (those of the N(0, 1) prior), 0 or more.
        exclude: Fingerprints that must not come back.
        max_atoms: Most atoms in the primitive cell.

    Returns:
        Distinct genes: those whose own prediction meets the target in the order of their references, then the others,
        nearest first.

    Raises:
        TargetError: No gene can meet the space groups, elements and sizes of the target, or there is no reference.
    """
    known = [gene for gene in references if all(symbol in element_ids() for symbol in gene.amounts)]
    if not known:
        raise TargetError(f"no known crystal to perturb for target '{target}'; widen it or use another sampler")
    network = checkpoint.network
    limits = limits_of(target, max_atoms, max([MAX_ELEMENTS, *(len(gene.amounts) for gene in known)]))
    if not network.decoder.grammar.space_group_mask(limits).any():
        raise TargetError(f"no space group of target '{target}' has an orbit of at most {limits.max_atoms} atoms")
    means = latent_vectors(network, gene_arrays(known))[0].repeat_interleave(copies, dim=0)
    noise = torch.randn(means.shape, generator=torch.Generator().manual_seed(seed))
    found: dict[str, Gene] = {}
    for latent in torch.split(means + sigma * noise, BATCH_SIZE):
        for gene in genes_of(network.decoder.decode(latent, limits)):
            fingerprint = str(gene)  # canonical already
            if fingerprint not in exclude and structure_matches(target, limits, gene):
                found.setdefault(fingerprint, gene)
    genes = list(found.values())
    misses = [property_miss(target, prediction.values()) for prediction in predict(checkpoint, genes)]
    order = sorted(range(len(genes)), key=misses.__getitem__)  # stable
    return [genes[index] for index in order[:n]]


def _values(row: TrainingRow) -> dict[str, object]:
    gene = row.gene
    structural: dict[str, object] = {
        "space_group_number": gene.space_group_number,
        "crystal_system": gene.space_group.crystal_system,
        "formula_pretty": gene.formula_pretty,
        "nelements": len(gene.amounts),
        "nsites": gene.nsites,
        "elements": gene.elements,
        "chemsys": gene.chemsys,
    }
    return structural | dict(row.labels)
