"""What goes wrong in a request, told as JSON to programs and as a page to people; never a traceback."""

from fastapi import FastAPI, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pymongo.errors import PyMongoError
from starlette.exceptions import HTTPException as AnyHTTPException

from wyloop.models.errors import DatabaseError, TargetError, WyloopError
from wyloop.platform.dashboard.candidate_view import NotFoundError
from wyloop.platform.dashboard.pages import is_page
from wyloop.platform.dashboard.tables import SlowQueryError
from wyloop.platform.dashboard.templating import error_page
from wyloop.stores.failures import describe


def tell_failures(app: FastAPI) -> None:
    """Let the application answer every failure of ours with its line."""
    app.add_exception_handler(WyloopError, _ours)
    app.add_exception_handler(PyMongoError, _database)
    app.add_exception_handler(AnyHTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)


def _ours(request: Request, error: Exception) -> Response:
    return _told(request, status_of(error), str(error))


def status_of(error: Exception) -> int:
    """Return the HTTP status of one of our errors."""
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, SlowQueryError | DatabaseError):
        return 503
    return 400 if isinstance(error, TargetError) else 500


def _database(request: Request, error: Exception) -> Response:
    assert isinstance(error, PyMongoError)  # noqa: S101 - registered for it
    return _told(request, 503, describe(error))


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)  # noqa: S101 - registered for it
    return _told(request, error.status_code, str(error.detail), dict(error.headers or {}))


def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    first = error.errors()[0]
    message = f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
    if is_page(request.url.path):
        return error_page(request, 400, message)
    told = [{key: one[key] for key in ("loc", "msg", "type")} for one in error.errors()]
    return JSONResponse({"detail": jsonable_encoder(told)}, 422)


def _told(request: Request, status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    if is_page(request.url.path) and request.method in ("GET", "HEAD"):
        return error_page(request, status, message, headers)
    return JSONResponse({"detail": message}, status, headers)
