"""Nearest crystals in a model's latent space: the mean of q(z|x) of every known gene, kept once a model version.

The vectors lie as float32 in files of a GridFS bucket of their own, derived data that `build_latents` makes again. A
search compares with all of them (a file at a time: exact, no index to tune), so it takes time in proportion to their
number; memory holds one file.
"""

import io
from collections.abc import Iterator, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Any

import numpy as np
from gridfs import GridFS
from numpy.typing import NDArray

from wyloop.models.errors import TargetError
from wyloop.models.wyckoff.gene import Gene
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated
from wyloop.stores.nearest import MAX_IDS, Neighbour, checked_number
from wyloop.stores.registry import load_weights

if TYPE_CHECKING:
    from wyloop.stores.builders.run import OnProgress  # maggma: one second

BUCKET = "latents"
IN_FILE = 20_000  # genes


@translated
def build_latents(store: Store, model_id: str, *, on_progress: "OnProgress | None" = None) -> int:
    """Encode the genes of the database that this model version has not encoded yet.

    Args:
        store: The database.
        model_id: The model version.
        on_progress: Told how many new genes are done, and their number.

    Returns:
        How many are new; genes with elements that the model does not know are left out.

    Raises:
        ModelError: No such model, or its weights are missing or damaged.
    """
    from wyloop.models.mpvae.checkpoint import Checkpoint  # torch: three seconds

    network = Checkpoint.from_bytes(load_weights(store, model_id)).network
    known = {fingerprint for fingerprints, _ in _files(store, model_id) for fingerprint in fingerprints}
    new = sorted(set(_fingerprints(store)) - known)
    n_done = 0
    for start in range(0, len(new), IN_FILE):
        kept, vectors = _encoded(network, new[start : start + IN_FILE])
        if kept:
            _put(store, model_id, kept, vectors)
        n_done += len(kept)
        if on_progress is not None:
            on_progress(min(start + IN_FILE, len(new)), len(new))
    return n_done


@translated
def nearest_latents(store: Store, model_id: str, gene: Gene, *, n: int = 10) -> list[Neighbour]:
    """Return the n known genes nearest to a gene in a model's latent space, the nearest first.

    The distance is the Euclidean one between means of q(z|x), dimensionless; only genes that `build_latents` has seen
    are compared.

    Raises:
        ModelError: No such model, or its weights are missing or damaged.
        TargetError: The model has no latent vectors yet, or does not know an element of the gene.
    """
    from wyloop.models.mpvae.checkpoint import Checkpoint  # torch: three seconds

    checked_number(n)
    network = Checkpoint.from_bytes(load_weights(store, model_id)).network
    kept, own = _encoded(network, [gene.fingerprint])
    if not kept:
        raise TargetError(f"{model_id} does not know an element of {gene}; expected a gene of elements it learned")
    nearest: list[tuple[float, str]] = []
    is_built = False
    for fingerprints, vectors in _files(store, model_id):
        is_built = True
        distances = np.linalg.norm(vectors - own, axis=1)
        places = np.argpartition(distances, min(n, len(distances)) - 1)[:n]
        nearest = nsmallest(n, {*nearest, *((float(distances[place]), fingerprints[place]) for place in places)})
    if not is_built:
        raise TargetError(f"no latent vectors of {model_id}; expected them; build them first")
    return [Neighbour(distance, Gene.parse(key).formula_pretty, key, _ids(store, key)) for distance, key in nearest]


@translated
def forget_latents(store: Store, model_id: str) -> int:
    """Remove a model version's vectors; return how many files there were."""
    bucket = GridFS(store.database, BUCKET)
    found = [file._id for file in bucket.find({"filename": {"$eq": str(model_id)}})]
    for identity in found:
        bucket.delete(identity)
    return len(found)


def _fingerprints(store: Store) -> Iterator[str]:
    stages: list[dict[str, Any]] = [{"$sort": {"fingerprint": 1}}, {"$group": {"_id": "$fingerprint"}}]
    for name in ("encodings", "materials"):
        for row in store.database[name].aggregate(stages, batchSize=10_000):
            if row["_id"] is not None:
                yield row["_id"]


def _encoded(network: Any, fingerprints: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:  # noqa: ANN401
    """Return those whose elements the network knows, and their latent means, shape (n, latent_dim)."""
    from wyloop.models.mpvae.data import gene_arrays  # torch: three seconds
    from wyloop.models.mpvae.predict import latent_vectors
    from wyloop.models.mpvae.vocabulary import element_ids

    kept, genes = [], []
    for fingerprint in fingerprints:
        gene = Gene.parse(fingerprint)
        if all(symbol in element_ids() for symbol in gene.elements):
            kept.append(fingerprint)
            genes.append(gene)
    if not genes:
        return [], np.zeros((0, network.config.latent_dim), dtype=np.float32)
    mean, _ = latent_vectors(network, gene_arrays(genes))
    return kept, np.asarray(mean.numpy(), dtype=np.float32)


def _put(store: Store, model_id: str, fingerprints: Sequence[str], vectors: NDArray[np.float32]) -> None:
    file = io.BytesIO()
    np.savez(file, vectors=vectors, fingerprints=np.frombuffer("\n".join(fingerprints).encode(), dtype=np.uint8))
    GridFS(store.database, BUCKET).put(file.getvalue(), filename=model_id)


def _files(store: Store, model_id: str) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Yield fingerprints and vectors, file by file."""
    for file in GridFS(store.database, BUCKET).find({"filename": {"$eq": str(model_id)}}).sort("uploadDate", 1):
        with np.load(io.BytesIO(file.read()), allow_pickle=False) as arrays:
            fingerprints = arrays["fingerprints"].tobytes().decode().split("\n")
            yield fingerprints, arrays["vectors"]


def _ids(store: Store, fingerprint: str) -> tuple[str, ...]:
    for name, identity in (("materials", "material_id"), ("encodings", "structure_id")):
        found = store.database[name].find({"fingerprint": {"$eq": fingerprint}}, {"_id": 0, identity: 1}).limit(MAX_IDS)
        ids = tuple(sorted(row[identity] for row in found))
        if ids:
            return ids
    return ()
