"""Who may change something over HTTP: the bearer of the configured token; without one nobody."""

import hmac
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

_BEARER = HTTPBearer(auto_error=False, description="The token of WYLOOP_PLATFORM_API_TOKEN")


def hashed(token: SecretStr | None) -> bytes | None:
    """Return the only form in which the application keeps a token."""
    return None if token is None else sha256(token.get_secret_value().encode()).digest()


def may_write(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
    """Let a request with the right token pass; a dependency of every route that changes something.

    Raises:
        HTTPException: 403 where no token is configured, 401 for a missing or wrong one.
    """
    expected: bytes | None = request.app.state.token_hash
    if expected is None:
        raise HTTPException(403, "this server only reads; expected WYLOOP_PLATFORM_API_TOKEN to be set where it runs")
    given = sha256(credentials.credentials.encode("utf-8", "replace")).digest() if credentials else b""
    if not hmac.compare_digest(given, expected):
        raise HTTPException(
            401, "no valid token; expected the header 'Authorization: Bearer TOKEN'", {"WWW-Authenticate": "Bearer"}
        )
