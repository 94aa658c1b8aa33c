import pytest

from wyloop.models.errors import CalculatorError
from wyloop.models.physics.protocols import protocol
from wyloop.models.physics.workflows import CATEGORY, WORKFLOWS, Step, Workflow, workflow
from wyloop.stores.calculations import RESULTS


def test_names_and_steps() -> None:
    assert set(WORKFLOWS) == {
        "mlip-screen/1",
        "mlip-gamma/1",
        "gpaw-pbe/1",
        "gpaw-gamma/1",
        "gpaw-bands/1",
        "mp-vasp/1",
    }
    kinds = [step.kind for step in workflow("gpaw-gamma/1").steps]
    assert kinds == ["relaxation", "dft", "static", "dft_phonon", "bands", "transport"]
    with pytest.raises(CalculatorError, match=r"no workflow for protocol 'x/1'; expected one of gpaw-bands/1"):
        workflow("x/1")


@pytest.mark.parametrize("identifier", sorted(WORKFLOWS))
def test_every_step_can_run(identifier: str) -> None:
    seen: set[str] = set()
    for step in workflow(identifier).steps:
        assert step.kind in CATEGORY
        assert step.kind in RESULTS
        assert set(step.after) <= seen
        assert set(step.only_if) <= set(step.after)
        relaxed_by = protocol(step.protocol).settings.get("relaxed_by")
        assert relaxed_by is None or relaxed_by in step.after
        seen.add(step.protocol)


def test_hash_follows_the_steps() -> None:
    one = Workflow("w", 1, (Step("mlip-screen/1"),))
    assert Workflow("w", 1, (Step("mlip-screen/1"),)).hash == one.hash
    assert Workflow("w", 1, (Step("mlip-screen/1"), Step("mlip-gamma/1", ("mlip-screen/1",)))).hash != one.hash
    assert Workflow("w", 2, (Step("mlip-screen/1"),)).hash != one.hash
