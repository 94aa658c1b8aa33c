"""All collections, in the order of the loop."""

from wyloop.stores.documents.base import WyloopDocument
from wyloop.stores.documents.budgets import BudgetDocument, ReservationDocument
from wyloop.stores.documents.calculations import CalculationDocument
from wyloop.stores.documents.campaigns import CampaignDocument, RoundDocument
from wyloop.stores.documents.candidates import CandidateDocument
from wyloop.stores.documents.encodings import EncodingDocument
from wyloop.stores.documents.hulls import HullDocument
from wyloop.stores.documents.imports import ImportDocument
from wyloop.stores.documents.ingests import IngestDocument
from wyloop.stores.documents.materials import MaterialDocument
from wyloop.stores.documents.model_versions import ModelVersionDocument
from wyloop.stores.documents.optimade import OptimadeReferenceDocument, OptimadeStructureDocument
from wyloop.stores.documents.promotions import PromotionDocument
from wyloop.stores.documents.saved_queries import SavedQueryDocument
from wyloop.stores.documents.structures import StructureDocument

DOCUMENTS: tuple[type[WyloopDocument], ...] = (
    StructureDocument,
    EncodingDocument,
    ModelVersionDocument,
    PromotionDocument,
    CampaignDocument,
    RoundDocument,
    BudgetDocument,
    ReservationDocument,
    ImportDocument,
    CandidateDocument,
    CalculationDocument,
    MaterialDocument,
    HullDocument,
    OptimadeStructureDocument,
    OptimadeReferenceDocument,
    IngestDocument,
    SavedQueryDocument,
)
