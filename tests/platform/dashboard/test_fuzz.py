"""Made-up requests after our own OpenAPI description: refused or answered, never a fault of the server."""

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case

from tests.platform.dashboard.conftest import Site

ENDLESS = "/api/events"


def test_no_request_makes_the_server_fail(site: Site) -> None:
    # the plugin of schemathesis does not work with this pytest, so its strategies are drawn from by hand
    schema = schemathesis.openapi.from_url(f"{site.url}/api/openapi.json").exclude(path=ENDLESS)
    tried: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=8, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def check(case: Case) -> None:
            answer = case.call(timeout=60)
            assert answer.status_code < 500, f"{case.method} {answer.url}: {answer.status_code} {answer.text[:300]}"
            assert "Traceback" not in answer.text

        check()
        tried.append(operation.label)
    assert len(tried) > 20
