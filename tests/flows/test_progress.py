import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client

from wyloop.flows.progress import listening, progress


class Steps:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def update(self, step: str, done: int, total: int) -> None:
        self.seen.append((step, done, total))


def test_every_listener_hears_every_step_while_it_listens() -> None:
    first, second = Steps(), Steps()
    with listening(first):
        with listening(second), progress("relaxing") as report:
            report(1, 2)
        with progress("phonons") as report:
            report(0, 0)
    with progress("nobody listens") as report:
        report(1, 1)
    assert first.seen == [("relaxing", 1, 2), ("phonons", 0, 0)]
    assert second.seen == [("relaxing", 1, 2)]


def test_a_failing_step_leaves_no_listener_behind() -> None:
    steps = Steps()
    with pytest.raises(ValueError, match="no"), listening(steps):
        raise ValueError("no")
    with progress("after") as report:
        report(1, 1)
    assert steps.seen == []


@pytest.mark.slow
@pytest.mark.usefixtures("prefect")
def test_a_task_shows_its_progress_in_prefect() -> None:
    @task
    def relaxing() -> None:
        with progress("relaxing twelve crystals") as report:
            for done in range(13):
                report(done, 12)

    @flow
    def shown() -> None:
        relaxing()

    shown()
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(limit=200)
    found = [artifact for artifact in artifacts if artifact.description == "relaxing twelve crystals"]
    assert [(artifact.type, artifact.data) for artifact in found] == [("progress", 100.0)]
