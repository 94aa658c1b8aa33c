"""Crystals that another program wrote to a file, as a generator like the others."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from wyloop.flows.generators.interface import Proposal, Request
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.connection import Store
from wyloop.stores.imports import ImportedGene, imports_for, settle_imports


@dataclass
class Imported:
    """What was imported under a generator's name for a campaign, in the order of its import."""

    name: str
    store: Store
    campaign_id: str
    round_id: str
    taken: list[ImportedGene] = field(default_factory=list)
    """What the round took, known and repeated genes included."""
    known: set[str] = field(default_factory=set)

    def propose(self, request: Request) -> Sequence[Proposal]:
        """Return the new ones among the next genes, at most `n`; whether they fit the target the screens say."""
        waiting = imports_for(self.store, self.campaign_id, self.round_id, self.name)
        proposals: list[Proposal] = []
        while len(proposals) < request.n and len(self.taken) < len(waiting):
            batch = waiting[len(self.taken) :][: request.n - len(proposals)]
            self.taken += batch
            known = request.known([gene.fingerprint for gene in batch])
            self.known |= known
            proposals += [
                Proposal(Gene.parse(gene.fingerprint), gene.crystal, facts=gene.origin)
                for gene in batch
                if gene.fingerprint not in known
            ]
        return proposals

    def settle(self, of_others: Collection[str]) -> None:
        """Note which genes became candidates, which were known, and which another generator had proposed first."""
        outcomes: dict[str, list[ImportedGene]] = {"candidate": [], "known": [], "duplicate": []}
        for gene in self.taken:
            is_known = gene.fingerprint in self.known
            outcome = "candidate" if not is_known else "duplicate" if gene.fingerprint in of_others else "known"
            outcomes[outcome].append(gene)
        settle_imports(self.store, self.round_id, outcomes)
