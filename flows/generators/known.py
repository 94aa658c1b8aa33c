"""Which genes a generator may not propose, asked of the database; and a count of all that it came up with."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from wyloop.stores import candidates
from wyloop.stores.connection import Store


@dataclass
class Tally:
    """What one generator came up with in a round; called, it says which of some genes must not come.

    What the same round proposed before it was interrupted is made again from the same seed, so it counts as new.
    """

    store: Store
    campaign_id: str
    round_id: str
    earlier: Collection[str]
    """Genes that other generators proposed before in this round."""
    seen: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    """Of the genes seen, those in the database or proposed in an earlier round."""
    duplicates: set[str] = field(default_factory=set)
    """Of the others, those that another generator proposed first."""

    def __call__(self, fingerprints: Sequence[str]) -> set[str]:
        """Return those of these genes that must not come, and count all of them."""
        others = candidates.proposed_among(self.store, self.campaign_id, fingerprints, except_round=self.round_id)
        known = others | candidates.known_among(self.store, fingerprints)
        duplicates = {one for one in fingerprints if one in self.earlier and one not in known}
        self.seen.update(fingerprints)
        self.known |= known
        self.duplicates |= duplicates
        return known | duplicates

    def counts(self, n_asked: int, n_candidates: int) -> dict[str, int]:
        """Return what the round's record keeps of it."""
        return {
            "n_asked": n_asked,
            "n_proposed": len(self.seen),
            "n_known": len(self.known),
            "n_duplicates": len(self.duplicates),
            "n_candidates": n_candidates,
        }
