"""Wyloop in a notebook: connect, ingest, train, generate, run a campaign, query, plot; results that show themselves.

from wyloop.platform.notebook import connect

with connect() as wy:
    wy.ingest("mydata.csv.gz")
    wy.query("band_gap > 1 and elements has O", limit=5)
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from wyloop.models.targets import Target
from wyloop.platform.settings import AllSettings, all_settings
from wyloop.stores.connection import Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from wyloop.models.wyckoff.gene import Gene

Collection = Literal["materials", "structures", "candidates"]
Rows = list[dict[str, Any]]
HEADS = {
    "formula_pretty": "formula",
    "space_group_number": "space group",
    "formation_energy_per_atom": "E_f, eV/atom",
    "energy_above_hull": "above hull, eV/atom",
    "band_gap": "gap, eV",
    "status": "status",
    "id": "id",
}


class Table(Rows):
    """Rows of an answer: a list of dictionaries that a notebook shows as a table."""

    def frame(self) -> "DataFrame":
        """Return the rows as a pandas frame."""
        from wyloop.stores.queries import to_frame

        return to_frame(self)

    def _repr_html_(self) -> str:
        present = {name: head for name, head in HEADS.items() if any(row.get(name) is not None for row in self)}
        heads = "".join(f"<th>{head}</th>" for head in present.values())
        lines = "".join(
            "<tr>" + "".join(f"<td>{escape(_shown(row.get(name)))}</td>" for name in present) + "</tr>" for row in self
        )
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table><p>{len(self)} rows</p>"


@dataclass(frozen=True)
class Funnel:
    """How far the candidates of a round got; a notebook shows it as bars."""

    round_id: str
    stages: tuple[tuple[str, int, str], ...]
    """Stage, candidates, note."""

    def _repr_html_(self) -> str:
        top = max([1, *(n for _, n, _ in self.stages)])
        lines = "".join(
            f"<tr><td>{escape(name)}</td><td style='width:22em'><div style='width:{100 * n / top:.2f}%;height:1em;"
            f"min-width:2px;background:#0b72b9'></div></td><td style='text-align:right'>{n}</td>"
            f"<td>{escape(note)}</td></tr>"
            for name, n, note in self.stages
        )
        return f"<table><caption>{escape(self.round_id)}</caption>{lines}</table>"


@dataclass(frozen=True)
class Candidate:
    """A candidate with its whole story; a notebook shows the essentials."""

    story: dict[str, Any] = field(repr=False)
    candidate_id: str
    formula_pretty: str
    status: str

    def _repr_html_(self) -> str:
        from wyloop.platform.dashboard.candidate_view import comparisons

        lines = "".join(
            f"<tr><td>{escape(one.name)}</td><td>{_shown(one.predicted)}</td><td>{_shown(one.spread)}</td>"
            f"<td>{_shown(one.calculated)}</td><td>{escape(one.unit)}</td></tr>"
            for one in comparisons(self.story)
        )
        head = f"{self.formula_pretty}, gene {self.story['fingerprint']}: {self.status}"
        return (
            f"<p><b>{escape(head)}</b></p><table><thead><tr><th>property</th><th>predicted</th><th>±</th>"
            f"<th>calculated</th><th>unit</th></tr></thead><tbody>{lines}</tbody></table>"
        )


@dataclass(frozen=True)
class Structure:
    """A crystal; a notebook that has ASE's viewer shows it in 3D, else as its cell."""

    identity: str
    crystal: Any

    def to_ase(self) -> Any:  # noqa: ANN401 - ase ships no types
        """Return it as ASE's atoms."""
        return self.crystal.to_ase()

    def to_pymatgen(self) -> Any:  # noqa: ANN401 - half a second to import
        """Return it as pymatgen's structure."""
        return self.crystal.to_pymatgen()

    def _repr_html_(self) -> str:
        from wyloop.platform.dashboard.crystals import cell_of

        cell = cell_of(self.crystal)
        lengths = " × ".join(f"{value:.3f}" for value in cell["lengths"])
        angles = ", ".join(f"{value:.1f}°" for value in cell["angles"])
        atoms = ", ".join(f"{n} {symbol}" for symbol, n in self.crystal.amounts.items())
        return f"<p><b>{escape(self.identity)}</b>: {atoms}; {lengths} Å; {angles}; {cell['volume']:.1f} Å³</p>"


class Wyloop:
    """An open database with everything that can be asked of it. Make one with `connect`; close it when done."""

    def __init__(self, settings: AllSettings, store: Store, exits: ExitStack) -> None:
        self.settings, self.store, self._exits = settings, store, exits

    def __enter__(self) -> "Wyloop":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the database, and stop what `connect` started."""
        self._exits.close()

    def ingest(self, path: str | Path | None = None) -> Any:  # noqa: ANN401 - the report of its kind
        """Bring crystals in from a CSV file, or the starter set; what is there already is left alone."""
        from wyloop.stores.builders.encodings import build_encodings
        from wyloop.stores.builders.hulls import build_hulls
        from wyloop.stores.builders.materials import build_materials
        from wyloop.stores.ingest.csv import ingest_csv
        from wyloop.stores.ingest.starter import ingest_starter

        report = ingest_starter(self.store) if path is None else ingest_csv(self.store, Path(path))
        build_encodings(self.store, n_processes=1)
        build_materials(self.store, n_processes=1)
        build_hulls(self.store)
        return report

    def query(
        self, conditions: str = "", *, collection: Collection = "materials", limit: int = 20, sort: str | None = None
    ) -> Table:
        """Return rows that meet the conditions, such as `band_gap > 1 and elements has O`."""
        from wyloop.stores.queries import query

        target = Target.parse([conditions] if conditions.strip() else [])
        return Table(query(self.store, target, collection=collection, limit=limit, sort=sort))

    def structure(self, identity: str) -> Structure:
        """Return the crystal of a material or structure by its id.

        Raises:
            TargetError: None has this id.
        """
        from wyloop.models.errors import TargetError
        from wyloop.stores.records import crystal_of

        for name, key in (("materials", "material_id"), ("structures", "structure_id")):
            found = self.store.database[name].find_one({key: {"$eq": identity}})
            if found is not None:
                return Structure(identity, crystal_of(found.get("crystal", found)))
        raise TargetError(f"no material or structure {identity!r}; expected an id that a query shows")

    def train(self, *, n_epochs: int | None = None, seed: int = 0) -> str:
        """Fine-tune the shipped model on everything in the database; return the new model's id."""
        from wyloop.models.mpvae.checkpoint import load_shipped
        from wyloop.models.mpvae.config import TrainingConfig
        from wyloop.models.mpvae.train import train
        from wyloop.stores.registry import save_model
        from wyloop.stores.training import training_snapshot

        snapshot = training_snapshot(self.store)
        config = TrainingConfig.fine_tune(n_rows=len(snapshot.rows), seed=seed)
        if n_epochs is not None:
            config = config.model_copy(update={"n_epochs": n_epochs})
        made = train(snapshot.rows, config, initial=load_shipped())
        return save_model(
            self.store, made.to_bytes(), parent_id=None, card=dict(made.card), snapshot=snapshot, campaign_id=None,
            round_number=None,
        )  # fmt: skip

    def generate(self, target: str, n: int = 100, *, model: str | None = None, seed: int = 0) -> "list[Gene]":
        """Return distinct valid genes for a target, by a model of the registry or the shipped one."""
        from wyloop.models.mpvae.checkpoint import load_shipped
        from wyloop.models.mpvae.sample import generate
        from wyloop.stores.registry import load_checkpoint

        checkpoint = load_shipped() if model is None else load_checkpoint(self.store, model)
        return list(generate(checkpoint, Target.parse([target]), n, seed=seed))

    def run_campaign(self, target: Sequence[str], *, rounds: int = 1, **policy: Any) -> str:  # noqa: ANN401
        """Run rounds of a campaign to their end, its jobs by workers of this machine; return the campaign's id.

        Args:
            target: Conditions, such as `band_gap > 1`.
            rounds: How many more rounds.
            policy: Settings of the rounds by name, such as `n_candidates=500`, `n_relaxations=8`, `n_dft=0`.
        """
        import os
        import time

        from wyloop.flows.policy import Policy
        from wyloop.platform import session
        from wyloop.stores import campaigns

        made = campaigns.create_campaign(
            self.store, Target.parse(list(target)).texts(), Policy(**policy).model_dump(mode="json")
        )
        campaigns.set_campaign_state(self.store, made.campaign_id, "active")
        campaigns.request_rounds(self.store, made.campaign_id, rounds)
        with session.borrowed(self.settings.with_uri(self.store.uri), with_prefect=True) as running:
            os.environ.update(running.environment)
            from wyloop.flows.campaign import advance_campaign

            while advance_campaign(made.campaign_id) in ("waiting", "busy"):  # busy: the schedule of `wyloop up` has it
                time.sleep(2)
        return made.campaign_id

    def funnels(self, campaign_id: str) -> list[Funnel]:
        """Return the funnel of each round of a campaign."""
        from wyloop.platform.dashboard.funnel_view import funnel
        from wyloop.stores.campaigns import rounds

        return [
            Funnel(one.round_id, tuple((stage.name, stage.n, stage.note) for stage in funnel(self.store, one)))
            for one in rounds(self.store, campaign_id)
        ]

    def candidate(self, identity: str) -> Candidate:
        """Return a candidate with its whole story."""
        from wyloop.platform.dashboard.candidate_view import told_of

        told = told_of(self.store, identity)
        return Candidate(told, identity, str(told["formula_pretty"]), str(told["status"]))

    def plot(self, name: str, *, campaign_id: str | None = None) -> Any:  # noqa: ANN401 - Plotly's figure
        """Return a Plotly figure.

        Args:
            name: `gap-energy` or `hull-energy`; with a campaign `learning`, `found`, `parity-energy` or `parity-gap`.
            campaign_id: The campaign.
        """
        import plotly.graph_objects as graphs  # type: ignore[import-untyped]  # ships no types

        from wyloop.platform.dashboard import charts, learning, maps
        from wyloop.stores.campaigns import rounds

        if campaign_id is None:
            return graphs.Figure(maps.property_map(self.store, name))
        points = learning.compared(self.store, campaign_id)
        if name.startswith("parity-"):
            return graphs.Figure(charts.parity(points, name.removeprefix("parity-")))
        curve = learning.learnt(self.store, rounds(self.store, campaign_id), points)
        return graphs.Figure(charts.found(curve) if name == "found" else charts.learning(curve))

    def _repr_html_(self) -> str:
        counts = "".join(
            f"<li>{self.store.database[name].estimated_document_count()} {name}</li>"
            for name in ("structures", "materials", "candidates", "campaigns")
        )
        return f"<p><b>Wyloop</b> at {escape(self.store.host)}, database {escape(self.store.name)}</p><ul>{counts}</ul>"


def connect(config: Path | None = None) -> Wyloop:
    """Open the database of the settings; with none configured and none running, an embedded one until `close`.

    Args:
        config: Settings file; else WYLOOP_CONFIG, else `wyloop.toml` in the current folder.
    """
    from wyloop.platform.session import connected

    settings = all_settings(config)
    with ExitStack() as stack:
        store = stack.enter_context(connected(settings))
        return Wyloop(settings, store, stack.pop_all())
    raise AssertionError("unreachable")  # the stack lets every error through


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
