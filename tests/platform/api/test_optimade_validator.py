"""The validator of optimade-python-tools on every address of the server, each with other random entries."""

import random

import pytest
from optimade.validator import ImplementationValidator

from tests.platform.api.conftest import Served

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")


@pytest.mark.parametrize(
    ("path", "seed"), [("/v1", 1), ("/v1", 2), ("/v1.2", 3), ("/v1.2", 4), ("/v1.2.0", 5), ("/v1.2.0", 6), ("", 7)]
)
def test_the_validator_is_content(served: Served, path: str, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    random.seed(seed)
    validator = ImplementationValidator(base_url=f"{served.url}/optimade{path}")
    validator.validate_implementation()
    results = validator.results
    assert validator.valid, capsys.readouterr().out
    assert results.success_count > 60
    assert (results.failure_count, results.internal_failure_count, results.optional_failure_count) == (0, 0, 0)
