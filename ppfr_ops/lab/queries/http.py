"""An access over HTTP, by ``schemas/fr-endpoint.v1.openapi.json``."""

import asyncio
import base64
import json
import threading
from typing import TypeVar

import httpx2
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
from ppfr_ops.lab.queries.access import InvalidAnswer, Refused, Unreachable

Reply = TypeVar("Reply", bound=BaseModel)

_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})


class HttpAccess:
    """One request a call: no retries, no redirects, and nothing that the environment says.

    Neither a proxy, nor certificates, nor a password in ``~/.netrc`` (which would take the token's
    place) are looked for there. The deadline is for the whole exchange, whatever the endpoint sends
    and however slowly: it runs in an event loop, of a thread of its own, that breaks it off.

    Args:
        url: ``http://`` or ``https://``; the part before ``/v1``.
        timeout: seconds for a whole exchange.
        token: sent as bearer, if given.
    """

    def __init__(self, url: str, timeout: float = 10.0, token: str | None = None) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers["Accept-Encoding"] = "identity"  # what is sent small is small
        self._client = httpx2.AsyncClient(headers=headers, timeout=None, trust_env=False)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

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
        asked = self._send(verb, f"{self.url}/v1/{what}", body, headers)
        try:
            status, wait, data = asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        except TimeoutError:
            raise Unreachable(f"the endpoint is slow: no reply in {self.timeout:g} s") from None
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            raise Refused("the endpoint's URL is not valid") from None
        except (httpx2.HTTPError, OSError) as error:
            raise Unreachable(f"the endpoint is down ({type(error).__name__})") from None
        if status in _LATER:
            seconds = float(wait) if wait.isdecimal() else None
            raise Unreachable(f"the endpoint is busy (HTTP {status})", seconds)
        if status != 200:
            raise Refused(f"the endpoint refuses (HTTP {status})")
        try:
            return reply.model_validate(json.loads(data))
        except (ValueError, ValidationError, RecursionError):
            raise InvalidAnswer(f"the endpoint's reply is not a {what}") from None

    async def _send(
        self, verb: str, url: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        async with (
            asyncio.timeout(self.timeout),
            self._client.stream(verb, url, content=body, headers=headers) as response,
        ):
            data = b""
            async for piece in response.aiter_raw():
                data += piece
                if len(data) > LARGEST_REPLY:
                    raise InvalidAnswer(
                        f"the endpoint's reply is larger than {LARGEST_REPLY:,} bytes"
                    )
            return response.status_code, response.headers.get("Retry-After", ""), data


def _text(picture: bytes) -> str:
    return base64.b64encode(picture).decode()
