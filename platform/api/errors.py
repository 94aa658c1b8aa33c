"""Errors of the OPTIMADE server, as optimade-python-tools names them: each carries its status."""
# mypy: disable-error-code="import-untyped"
# optimade-python-tools ships no types.

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optimade.exceptions import OptimadeHTTPException


def bad_request(detail: str) -> "OptimadeHTTPException":
    """Return the error for a request that nobody could answer, status 400."""
    from optimade.exceptions import BadRequest

    return BadRequest(detail)


def forbidden(detail: str) -> "OptimadeHTTPException":
    """Return the error for a request beyond a limit of this server, status 403."""
    from optimade.exceptions import Forbidden

    return Forbidden(detail)


def not_found(detail: str) -> "OptimadeHTTPException":
    """Return the error for an entry or address that is not there, status 404."""
    from optimade.exceptions import NotFound

    return NotFound(detail)


def version_not_supported(what: str) -> "OptimadeHTTPException":
    """Return the error for a version that this server does not speak, status 553."""
    from optimade import __api_version__
    from optimade.exceptions import VersionNotSupported

    return VersionNotSupported(f"{what}; this server speaks version {__api_version__}")


def not_implemented(detail: str) -> "OptimadeHTTPException":
    """Return the error for an optional feature that this server does not have, status 501."""
    from optimade.exceptions import NotImplementedResponse

    return NotImplementedResponse(detail)
