"""Pages of an OPTIMADE server over HTTP: polite, patient with faults that pass, clear about those that stay."""

import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from wyloop.models.errors import IngestError
from wyloop.stores.documents.base import code_version

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

MAX_BODY = 256_000_000  # bytes of one page
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
KEPT = "the rows before are kept; run the same command again and it goes on"


@dataclass(frozen=True)
class Politeness:
    """How often and how patiently a server is asked; times in seconds."""

    delay: float = 0.2
    """Between two pages."""
    timeout: float = 60.0
    """For a connection, and for each part of an answer."""
    first_wait: float = 1.0
    """Before the second try; doubled for each further one."""
    longest_wait: float = 300.0
    """A server that asks for more patience ends the ingest."""
    n_tries: int = 6


class PageError(IngestError):
    """A server that refuses a page: the status decides what to do."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Pages:
    """A connection to one server's structures. Close it when done; a password in its address is shown nowhere."""

    def __init__(self, url: str, politeness: Politeness) -> None:
        import httpx  # a tenth of a second

        parts = _checked(url)
        self.politeness = politeness
        self.url = structures_url(urlunsplit((parts.scheme, _host(parts.netloc), parts.path, "", "")))
        """Address of the structures, without a password."""
        auth = None if parts.username is None else (parts.username, parts.password or "")
        self._client = httpx.Client(
            timeout=politeness.timeout,
            auth=auth,
            follow_redirects=True,
            headers={"User-Agent": f"wyloop/{code_version()}", "Accept": "application/vnd.api+json, application/json"},
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def info(self) -> dict[str, Any]:
        """Return the page that describes the structures; empty if the server has none."""
        try:
            return self.get(f"{self.url.removesuffix('/structures')}/info/structures")
        except PageError:
            return {}

    def get(self, url: str, params: dict[str, str] | None = None) -> dict[str, Any]:
        """Return one page, trying again after faults that pass.

        Raises:
            PageError: The server refuses it.
            IngestError: It can't be reached, asks for too much patience, or answers what is no JSON of OPTIMADE.
        """
        import httpx

        wait = self.politeness.first_wait
        for attempt in range(1, self.politeness.n_tries + 1):
            asked = None
            try:
                status, headers, body = self._answer(url, params)
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects) as error:
                raise IngestError(f"{self.url}: {_line(error)}; expected the base of an OPTIMADE API") from error
            except httpx.HTTPError as error:
                why = f"no answer ({type(error).__name__}{': ' + _line(error) if _line(error) else ''})"
            else:
                if status == 200:
                    page = _parsed(body)
                    if page is not None:
                        return page
                    why = f"no JSON of OPTIMADE but {body[:40]!r}"
                elif status not in PASSING:
                    raise PageError(
                        f"{self.url} answers {status}{_detail(body)}; expected structures; {REMEDY}", status
                    )
                else:
                    why = f"{status}{_detail(body)}"
                    asked = retry_after(headers.get("retry-after"))
            if attempt < self.politeness.n_tries:
                self._wait(asked if asked is not None else min(wait, self.politeness.longest_wait), why)
                wait *= 2
        raise IngestError(f"{self.url}: {why}, {self.politeness.n_tries} times; expected an answer; {KEPT}")

    def next_url(self, page: dict[str, Any], current: str) -> str | None:
        """Return the address of the page after this one, on the same server; None after the last.

        Raises:
            IngestError: The page has none though there is more, or leads to itself.
        """
        links = page.get("links")
        link = links.get("next") if isinstance(links, dict) else None
        link = link.get("href") if isinstance(link, dict) else link
        if not isinstance(link, str) or not link:
            if (page.get("meta") or {}).get("more_data_available") is True and page.get("data"):
                raise IngestError(f"{self.url} says that there is more but gives no next page; expected a link; {KEPT}")
            return None
        own, other = urlsplit(self.url), urlsplit(urljoin(current, link))
        # Behind a proxy servers name hosts that only they know, and http for https.
        path = other.path if other.hostname == own.hostname else own.path
        found = urlunsplit((own.scheme, own.netloc, path, other.query, ""))
        if found == current:
            raise IngestError(f"{self.url}: a page's next link leads to itself; expected another page; {KEPT}")
        return found

    def _answer(self, url: str, params: dict[str, str] | None) -> "tuple[int, httpx.Headers, bytes]":
        body = bytearray()
        with self._client.stream("GET", url, params=params) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_BODY:
                    raise IngestError(f"{self.url}: a page of more than {MAX_BODY} bytes; expected less; lower --page")
        return response.status_code, response.headers, bytes(body)

    def _wait(self, seconds: float, why: str) -> None:
        if seconds > self.politeness.longest_wait:
            raise IngestError(
                f"{self.url} asks to wait {seconds:.0f} s ({why}); expected at most {self.politeness.longest_wait:g} s;"
                f" {KEPT}"
            )
        logger.info("%s: %s, again in %.1f s", self.url, why, seconds)
        time.sleep(seconds)


REMEDY = "check the address and the filter"


def structures_url(url: str) -> str:
    """Return the address of the structures of a server, given its base, its versioned base or the address itself."""
    base = url.rstrip("/")
    if base.endswith("/structures"):
        return base
    last = base.rsplit("/", 1)[-1]
    is_versioned = last.startswith("v") and last[1:].replace(".", "").isdigit()
    return f"{base}/structures" if is_versioned else f"{base}/v1/structures"


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or a date; None if it says nothing."""
    if header is None:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds(), 0.0)
    except (ValueError, TypeError):  # no date, or one without a zone
        return None


def _checked(url: str) -> Any:  # noqa: ANN401 - urllib's own type
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for a port that is no number
    except ValueError as error:
        raise IngestError(f"{url!r} is no address ({error}); expected https://host/path of an OPTIMADE API") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise IngestError(f"{_host(url)!r} is no address; expected https://host/path of an OPTIMADE API")
    return parts


def _host(netloc: str) -> str:
    return netloc.rsplit("@", 1)[-1]


def _parsed(body: bytes) -> dict[str, Any] | None:
    try:
        page = json.loads(body)
    except ValueError:
        return None
    return page if isinstance(page, dict) and "data" in page else None


def _detail(body: bytes) -> str:
    """Return what an error answer of OPTIMADE says, in brackets."""
    try:
        first = json.loads(body)["errors"][0]
        text = " ".join(str(first.get("detail") or first.get("title") or "").split())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return f" ({text[:200]})" if text else ""


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
