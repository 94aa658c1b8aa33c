import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from wyloop.models.errors import BudgetError, CampaignError, LeaseLostError
from wyloop.stores import budget, campaigns
from wyloop.stores.budget import BudgetRow, Claim, Limits
from wyloop.stores.connection import Store, connect
from wyloop.stores.documents.base import now
from wyloop.stores.leases import acquire_lease
from wyloop.stores.settings import Settings

TARGET = ("band_gap > 0.5",)
MLIP, DFT = "mlip-screen/1", "gpaw-pbe/1"
WORKER = """
import sys
from pydantic import SecretStr
from wyloop.stores import budget
from wyloop.stores.connection import connect
from wyloop.stores.settings import Settings
uri, database, campaign, number = sys.argv[1:]
store = connect(Settings(uri=SecretStr(uri), database=database))
for i in range(15):
    claim = budget.Claim(f"calc-{number}-{i}", "mlip-screen/1", 10.0)
    print(budget.reserve(store, campaign, [[claim]], round_id="r")[0])
"""


@pytest.fixture
def campaign(database: Store) -> str:
    return campaigns.create_campaign(database, TARGET, {}).campaign_id


def claim(name: object, protocol: str = MLIP, core_seconds: float = 10.0) -> Claim:
    return Claim(f"calc-{name}", protocol, core_seconds)


def reserve(store: Store, campaign: str, *groups: list[Claim]) -> list[bool]:
    return budget.reserve(store, campaign, groups, round_id=f"{campaign}-r1")


def spent(store: Store, campaign: str, protocol: str = "all") -> tuple[int, int, float, float]:
    row = next(row for row in budget.budget(store, campaign) if row.protocol == protocol)
    return row.jobs_reserved, row.jobs_settled, row.core_seconds_reserved, row.core_seconds_spent


def test_a_calculation_is_charged_once_whatever_is_repeated(database: Store, campaign: str) -> None:
    for _ in range(2):
        assert reserve(database, campaign, [claim(1), claim(2, DFT, 100.0)]) == [True]
    assert spent(database, campaign) == (2, 0, 110.0, 0.0)
    assert spent(database, campaign, DFT) == (1, 0, 100.0, 0.0)
    assert budget.settle(database, {"calc-1": 4.0}) == 1
    assert budget.settle(database, {"calc-1": 400.0}) == 0
    assert budget.release(database, ["calc-2", "calc-1"], reason="never ran") == 1
    assert budget.release(database, ["calc-2"], reason="never ran") == 0
    assert budget.settle(database, {"calc-2": 5.0}) == 0
    assert spent(database, campaign) == (0, 1, 0.0, 4.0)
    assert budget.contradictions(database) == []
    assert reserve(database, campaign, [claim(1)], [claim(2, DFT, 100.0)]) == [True, True]  # one settled, one anew
    assert spent(database, campaign) == (1, 1, 100.0, 4.0)


def test_limits_hold_for_all_and_for_each_protocol(database: Store, campaign: str) -> None:
    budget.set_limits(database, campaign, {"all": Limits(jobs=4, core_seconds=200.0), DFT: Limits(jobs=1)})
    assert reserve(database, campaign, [claim(1), claim(2, DFT, 50.0)]) == [True]
    assert reserve(database, campaign, [claim(3), claim(4, DFT)], [claim(3)]) == [False, True]  # a group wholly or not
    assert reserve(database, campaign, [claim(5, core_seconds=131.0)], [claim(5, core_seconds=130.0)]) == [False, True]
    assert reserve(database, campaign, [claim(6)]) == [False]
    budget.set_limits(database, campaign, {"all": Limits(jobs=5)})
    assert reserve(database, campaign, [claim(6)]) == [True]
    assert budget.budget(database, campaign)[0] == BudgetRow("all", 5, 5, 0, None, 210.0, 0.0)
    assert budget.contradictions(database) == []


def test_nothing_is_reserved_after_the_deadline(database: Store, campaign: str) -> None:
    budget.set_limits(database, campaign, {"all": Limits(deadline=now() - timedelta(seconds=1))})
    assert reserve(database, campaign, [claim(1)]) == [False]
    budget.set_limits(database, campaign, {"all": Limits(deadline=now() + timedelta(seconds=60))})
    assert reserve(database, campaign, [claim(1)]) == [True]


def test_what_another_campaign_pays_for_is_free_until_it_is_released(database: Store, campaign: str) -> None:
    other = campaigns.create_campaign(database, TARGET, {}, "other").campaign_id
    budget.set_limits(database, other, {"all": Limits(jobs=0)})
    assert reserve(database, campaign, [claim(1)]) == [True]
    assert reserve(database, other, [claim(1)]) == [True]
    budget.release(database, ["calc-1"], reason="stopped")
    assert reserve(database, other, [claim(1)]) == [False]
    budget.set_limits(database, other, {"all": Limits(jobs=1)})
    assert reserve(database, other, [claim(1)]) == [True]
    assert [found.campaign_id for found in budget.reservations(database)] == [other]
    assert budget.contradictions(database) == []


def test_threads_and_processes_can_not_overrun_it(database: Store, stores_settings: Settings, campaign: str) -> None:
    budget.set_limits(database, campaign, {"all": Limits(jobs=40, core_seconds=400.0)})
    stores = [connect(stores_settings) for _ in range(6)]

    def work(number: int) -> int:
        return sum(reserve(stores[number], campaign, [claim(f"{number}-{i}")])[0] for i in range(15))

    arguments = [sys.executable, "-c", WORKER, database.uri, database.name, campaign]
    processes = [subprocess.Popen([*arguments, str(n)], stdout=subprocess.PIPE, text=True) for n in (6, 7)]
    with ThreadPoolExecutor(6) as pool:
        n_granted = sum(pool.map(work, range(6)))
    n_granted += sum(process.communicate(timeout=120)[0].count("True") for process in processes)
    for store in stores:
        store.close()
    assert n_granted == 40
    assert spent(database, campaign) == (40, 0, 400.0, 0.0)
    assert budget.contradictions(database) == []


def test_only_the_lease_of_an_active_campaign_may_spend(database: Store, campaign: str) -> None:
    token = acquire_lease(database, campaign, "a", 0)
    newer = acquire_lease(database, campaign, "b", 60)
    with pytest.raises(LeaseLostError, match="advanced by another process"):
        budget.reserve(database, campaign, [[claim(1)]], round_id="r", token=token)
    assert budget.reserve(database, campaign, [[claim(1)]], round_id="r", token=newer) == [True]
    campaigns.set_campaign_state(database, campaign, "paused")
    with pytest.raises(CampaignError, match="is paused; expected an active campaign"):
        budget.reserve(database, campaign, [[claim(2)]], round_id="r", token=newer)
    assert spent(database, campaign) == (1, 0, 10.0, 0.0)


def test_a_job_without_a_reservation_is_not_dispatched(database: Store, campaign: str) -> None:
    reserve(database, campaign, [claim(1)])
    with database.client.start_session() as session:
        with pytest.raises(BudgetError, match="nothing is reserved for calc-2"):
            session.with_transaction(lambda s: budget.dispatch_within(database.database, s, ["calc-1", "calc-2"]))
        session.with_transaction(lambda s: budget.dispatch_within(database.database, s, ["calc-1"]))
    assert [found.state for found in budget.reservations(database)] == ["dispatched"]


@pytest.mark.expects_findings("budget_contradicts_reservations")
def test_sums_that_do_not_fit_are_told(database: Store, campaign: str) -> None:
    reserve(database, campaign, [claim(1)])
    database.database["budgets"].update_one({"protocol": "all"}, {"$inc": {"jobs_reserved": 1}})
    (told,) = budget.contradictions(database)
    assert "jobs_reserved 2" in told
