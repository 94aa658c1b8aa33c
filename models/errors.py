"""Every exception that Wyloop raises on purpose, under one base."""


class WyloopError(Exception):
    """Anything that Wyloop reports as one line: the value, what was expected, the remedy."""


class StructureError(WyloopError):
    """A crystal structure that can't be read or has no gene: disordered, empty or unphysical."""


class GeneError(WyloopError):
    """A gene that breaks the tables of its space group."""


class WyckoffLetterError(GeneError):
    """A Wyckoff letter that the space group does not have."""


class RealizationError(WyloopError):
    """No crystal with sensible distances was found for a gene within the time allowed."""


class TargetError(WyloopError):
    """A target or filter that can't be parsed or names an unknown property."""


class ModelError(WyloopError):
    """A checkpoint or model that can't be loaded, or training data that can't be trained on."""


class CalculatorError(WyloopError):
    """A calculator that is missing, does not know an element, or failed."""


class DatabaseError(WyloopError):
    """MongoDB is unreachable, read-only, of another schema, or refused a write."""


class IngestError(WyloopError):
    """A file to ingest that can't be read at all; single bad rows are reported, not raised."""


class ServiceError(WyloopError):
    """An embedded service that can't be found, started or reached."""


class CampaignError(WyloopError):
    """A campaign that does not exist or can't do what was asked in its state."""


class LeaseLostError(CampaignError):
    """A process that no longer holds a campaign's lease tried to write for it; whoever holds it goes on."""


class BudgetError(CampaignError):
    """A campaign's budget does not allow another job."""
