"""An access over HTTP, by ``schemas/fr-endpoint.v1.openapi.json``."""

import base64
import contextlib
import json
import threading
import time
from typing import TypeVar

import requests
import urllib3
from pydantic import BaseModel, ValidationError

from ppfr_ops.contracts.endpoint import (
    LARGEST_REPLY,
    NUMBER_HEADER,
    EndpointInfo,
    ScoreReply,
    ScoreRequest,
    TemplateReply,
    TemplateRequest,
)
from ppfr_ops.lab.queries.access import Lied, Refused, Unreachable

Reply = TypeVar("Reply", bound=BaseModel)

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


class HttpAccess:
    """One request a call: no retries, no redirects.

    Args:
        url: ``http://`` or ``https://``; the part before ``/v1``.
        timeout: seconds for a whole reply.
        token: sent as bearer, if given.
    """

    def __init__(self, url: str, timeout: float = 10.0, token: str | None = None) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._threads = threading.local()

    def info(self) -> EndpointInfo:
        """What it says of itself; no query."""
        return self._exchange("GET", "info", None, {}, EndpointInfo)

    def template(self, picture: bytes, number: int) -> list[float]:
        asked = TemplateRequest(picture=_text(picture))
        return self._ask("template", asked, number, TemplateReply).template

    def score(self, a: bytes, b: bytes, number: int) -> float:
        asked = ScoreRequest(a=_text(a), b=_text(b))
        return self._ask("score", asked, number, ScoreReply).score

    def _ask(self, what: str, asked: BaseModel, number: int, reply: type[Reply]) -> Reply:
        headers = {NUMBER_HEADER: str(number), "Content-Type": "application/json"}
        return self._exchange("POST", what, asked.model_dump_json().encode(), headers, reply)

    def _exchange(
        self, verb: str, what: str, body: bytes | None, headers: dict[str, str], reply: type[Reply]
    ) -> Reply:
        deadline = time.monotonic() + self.timeout
        try:
            with self._session().request(
                verb,
                f"{self.url}/v1/{what}",
                data=body,
                headers={**self._headers, **headers},
                timeout=self.timeout,
                stream=True,
                allow_redirects=False,
            ) as response:
                data = b""
                # What has come, and no waiting for more: the deadline is for the whole reply.
                while piece := response.raw.read1(1 << 16, decode_content=True):
                    data += piece
                    if len(data) > LARGEST_REPLY:
                        raise Lied(f"the endpoint's reply is larger than {LARGEST_REPLY:,} bytes")
                    if time.monotonic() > deadline:
                        raise requests.Timeout
                status, wait = response.status_code, response.headers.get("Retry-After", "")
        except (requests.Timeout, urllib3.exceptions.TimeoutError):
            raise Unreachable(f"the endpoint is slow: no reply in {self.timeout:g} s") from None
        except requests.exceptions.InvalidURL:
            raise Refused("the endpoint's URL is none") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Unreachable(f"the endpoint is down ({type(error).__name__})") from None
        if status in _LATER:
            seconds = float(wait) if wait.isdecimal() else None
            raise Unreachable(f"the endpoint is busy (HTTP {status})", seconds)
        if status != 200:
            raise Refused(f"the endpoint refuses (HTTP {status})")
        try:
            return reply.model_validate(json.loads(data))
        except (ValueError, ValidationError, RecursionError):
            raise Lied(f"the endpoint's reply is not a {what}") from None

    def _session(self) -> requests.Session:
        with contextlib.suppress(AttributeError):
            found: requests.Session = self._threads.session
            return found
        self._threads.session = requests.Session()
        return self._session()


def _text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()
