"""A whole campaign on a fast oracle, in processes that can be killed at any of their writes.

Run as a script it is a fork server: it imports everything once, then runs one child for each line of JSON it reads, and
answers with the child's exit status. Real are the database, the LaunchPad, the rockets, and every step but these two:
`generate` proposes a fixed list of genes, and `compute` takes no time. Nothing is replaced in installed code.
"""

import json
import os
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from pymongo import monitoring

GENES = ("225 Cl:b Na:a", "225 F:b Li:a", "225 Mg:a O:b", "221 Br:b Cs:a", "225 Ca:a O:b", "225 K:a Cl:b")
FAILING = "Mg:a O:b"
DOUBTFUL = "Br:"
"""Genes with this relax into something far from the prediction, each time they are computed."""
TARGET = ("formation_energy_per_atom < -0.5", "space_group_number >= 195")
# fmt: off
CATIONS = (
    "Li", "Na", "K", "Rb", "Cs", "Be", "Mg", "Ca", "Sr", "Ba", "Sc", "Y", "Ti", "Zr", "Hf", "V", "Nb", "Ta", "Cr", "Mo",
    "W", "Mn", "Fe", "Co", "Ni", "Cu", "Ag", "Zn", "Cd", "Al", "Ga", "In", "La", "Ce",
)
ANIONS = ("F", "Cl", "Br", "I", "O", "S", "Se", "Te", "N", "P", "As")
WANTED = (
    "fireworks.core.rocket_launcher", "prefect.artifacts", "prefect.context", "wyloop.flows.jobs.calculation",
    "wyloop.flows.worker", "pandas", "gridfs",
)
# fmt: on
DONE, STUCK = 0, 7
MAX_LOOKS = 12
MAX_TURNS, PAUSE = 1200, 0.1  # of a scheduler, s


def prepare() -> None:
    """Put the oracle and the fixed generator in place, and load whatever a child would have to."""
    for name in WANTED:
        import_module(name)
    from wyloop.flows import campaign, physics, steps
    from wyloop.flows.jobs import compute
    from wyloop.models.physics import dft

    assert campaign.STEPS is steps.STEPS
    steps.STEPS["generate"] = propose_fixed
    steps.start_model = lambda store, _record: model_of(store)
    compute.compute = compute_fast
    for module in (physics, dft):
        module.find_gpaw = lambda: None  # type: ignore[attr-defined]
    warm_up()


def warm_up() -> None:
    """Run the pure parts of a round once: tables and models that they load stay in memory for every child."""
    from wyloop.models.mpvae.predict import Prediction
    from wyloop.models.screening.funnel import ScreeningPolicy, screen
    from wyloop.models.targets import Target
    from wyloop.models.wyckoff.encode import encode
    from wyloop.models.wyckoff.gene import Gene, canonical
    from wyloop.models.wyckoff.realize import realize

    for text in GENES:
        gene = canonical(Gene.parse(text))
        prediction = Prediction(-2.0, 0.1, 3.0, 0.3, 0.01, 22.0)
        screen([gene], [prediction], Target.parse(TARGET), set(), [], ScreeningPolicy())
        encode(realize(gene, 22.0, seed=0, n_starts=1)[0])


def model_of(store: Any) -> str:  # noqa: ANN401 - a Store
    """Register a small model."""
    import numpy as np
    from safetensors.numpy import save

    from wyloop.stores import registry

    weights = save({"weight": np.zeros(1, dtype=np.float32)})
    return registry.save_model(
        store, weights, parent_id=None, card={}, snapshot=None, campaign_id=None, round_number=None
    )


def propose_fixed(store: Any, campaign: Any, record: Any, policy: Any) -> dict[str, object]:  # noqa: ANN401
    """Propose the genes of this round, with predictions on target."""
    from wyloop.models.mpvae.predict import Prediction
    from wyloop.models.wyckoff.gene import Gene, canonical
    from wyloop.stores import candidates
    from wyloop.stores.candidates import CandidateRecord

    n = policy.n_candidates
    start = (record.number - 1) * n
    genes = [canonical(Gene.parse(text)) for text in all_genes(start + n)[start:]]
    made = [
        CandidateRecord(
            candidate_id=candidates.candidate_id(campaign.campaign_id, gene.fingerprint),
            campaign_id=campaign.campaign_id,
            round_id=record.round_id,
            round_number=record.number,
            gene=gene,
            prediction=Prediction(-2.0 - 0.01 * i, 0.1, 3.0, 0.3, 0.01, 22.0),
            model_id=str(record.model_id),
            seed=record.seed,
        )
        for i, gene in enumerate(genes)
    ]
    candidates.propose(store, made)
    return {"n_proposed": len(made)}


def all_genes(n: int) -> list[str]:
    """Return the first genes of a list without end (for our purposes): the six above, then binary rock salts."""
    if n <= len(GENES):
        return list(GENES[:n])
    rest = [
        f"{number} {first}:a {second}:b"
        for number in (225, 221)
        for first in CATIONS
        for second in ANIONS
        if f"225 {first}:a {second}:b" not in GENES
    ]
    return [*GENES, *rest][:n]


def compute_fast(_store: Any, record: Any, *_: Any) -> Any:  # noqa: ANN401 - of and for the job
    """Return what a calculation of this kind would, made of its identity."""
    import numpy as np

    from wyloop.flows.jobs.compute import Outcome
    from wyloop.models.errors import CalculatorError

    number = int(record.calculation_id[-6:], 16) / 16**6
    if record.kind == "reference":
        return Outcome({"energy_per_atom": -1.0 - number})
    if record.kind == "phonon":
        return Outcome({"frequencies": [3.0], "lowest_optical_frequency": 3.0, "is_stable": True, "is_prescreen": True})
    if record.kind == "dft":
        result = {"energy_per_atom": -4.0 - number, "band_gap": 3.0 + 0.1 * number}
        noise = np.random.default_rng(int(record.calculation_id[-6:], 16))
        return Outcome(result, record.inputs[0], arrays={"eigenvalues": noise.random(40_000)})  # two chunks
    if FAILING in record.subject:
        raise CalculatorError(f"{record.subject} does not relax; expected it to")
    energies = {"energy_per_atom": -4.0 - number, "formation_energy_per_atom": -2.0 - 0.1 * number}
    if DOUBTFUL in record.subject:
        energies = {"energy_per_atom": -6.0, "formation_energy_per_atom": -4.0}
    return Outcome({"converged": True, "n_steps": 5, "fingerprint": record.subject, **energies}, record.inputs[0])


def run_to_the_end(campaign_id: str) -> int:
    """Advance the campaign and run its jobs, until it has finished."""
    from wyloop.flows.campaign import FINISHED, advance_locally

    for _ in range(MAX_LOOKS * int(os.environ.get("WYLOOP_TEST_ROUNDS", "1"))):
        if advance_locally(campaign_id) == FINISHED:
            return DONE
        run_jobs(None)
    return STUCK


def advance_within(campaign_id: str, steps: list[str], n_more: int = 0) -> int:
    """Advance the campaign through these steps, or so many steps more, and no further."""
    from wyloop.flows import campaign

    left = [n_more]

    def run(name: str, *arguments: Any) -> bool:  # noqa: ANN401 - as run_step's
        if name not in steps:
            left[0] -= 1
            if left[0] < 0:
                return False
        return campaign.run_step(name, *arguments)

    campaign._advance(campaign_id, run, None)
    return DONE


def schedule(campaign_id: str) -> int:
    """Look after the campaign again and again as a scheduler does, whatever goes wrong, until it has finished."""
    from wyloop.flows.campaign import FINISHED, advance_locally
    from wyloop.models.errors import WyloopError

    for _ in range(MAX_TURNS):
        with suppress(WyloopError):
            if advance_locally(campaign_id) == FINISHED:
                return DONE
        time.sleep(PAUSE)
    return STUCK


def work(campaign_id: str) -> int:
    """Run jobs as a worker does until the campaign has finished."""
    from wyloop.flows import session
    from wyloop.flows.worker import run_worker
    from wyloop.stores.campaigns import campaign

    def is_wanted() -> bool:
        return campaign(session.store(), campaign_id).state != "finished"

    uri, database = session.store().uri, session.settings().launchpad_database
    run_worker(uri, database, run_folder=Path.cwd(), is_wanted=is_wanted)
    return DONE


def run_jobs(n: int | None) -> int:
    """Run so many jobs with a real rocket, or all that are ready."""
    from wyloop.flows import session
    from wyloop.flows.worker import run_worker

    left = [n]

    def is_wanted() -> bool:
        if left[0] is None:
            return True
        left[0] -= 1
        return left[0] >= 0

    uri, database = session.store().uri, session.settings().launchpad_database
    run_worker(uri, database, run_folder=Path.cwd(), once=True, is_wanted=is_wanted)
    return DONE


def do(order: dict[str, Any]) -> int:
    """Do what an order says."""
    if order["action"] == "job":
        return run_jobs(1)
    if order["action"] == "advance":
        return advance_within(order["campaign_id"], order["steps"], order.get("n_more", 0))
    return {"run": run_to_the_end, "schedule": schedule, "work": work}[order["action"]](order["campaign_id"])


def child(order: dict[str, Any]) -> NoReturn:
    """Do one order in this process, which does nothing else."""
    os.environ.update(order["environment"])
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # FireWorks logs there; the answers to orders are the server's
    if not order.get("is_loud"):
        os.dup2(1, 2)
    os.chdir(order["folder"])
    # beside this script
    from hosts import join  # type: ignore[import-not-found]
    from killer import Killer  # type: ignore[import-not-found]

    if order.get("host"):
        join(order["host"], order.get("network"))
    killer = Killer(order)
    monitoring.register(killer)
    status = do(order)
    if order.get("count"):
        Path(order["count"]).write_text(str(killer.n_writes))
        if os.environ.get("WYLOOP_TEST_IMPORTS"):
            Path(os.environ["WYLOOP_TEST_IMPORTS"]).write_text("\n".join(sorted(set(sys.modules) - _WARM)))
    os._exit(status)


_WARM: set[str] = set()


def serve() -> None:
    """Fork a child for every order."""
    prepare()
    _WARM.update(sys.modules)
    print("ready", flush=True)  # noqa: T201 - to who ordered
    for line in sys.stdin:
        order = json.loads(line)
        pid = order["pid"] if order["action"] == "reap" else os.fork()
        if pid == 0:
            try:
                child(order)
            except BaseException:  # noqa: BLE001 - a child must never go on as a server
                import traceback

                traceback.print_exc()
                os._exit(1)
        if order.get("is_left"):
            print(pid, flush=True)  # noqa: T201
            continue
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)  # noqa: T201


if __name__ == "__main__":
    serve()
