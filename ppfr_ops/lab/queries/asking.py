"""Asking within an account: counted, cached, retried, at a limited rate."""

import hashlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from ppfr_ops.lab.queries.access import Access, EndpointError, InvalidAnswer, Unreachable
from ppfr_ops.lab.queries.account import QueryAccount
from ppfr_ops.lab.queries.answers import Answers

T = TypeVar("T")

ATTEMPTS = 5
LONGEST_WAIT = 60.0


class QueryClient:
    """Puts questions to an access. Threads may share it.

    Args:
        attempts: of a query while the endpoint is unreachable; every one is counted.
        per_second: queries that are begun, at most; None: as they come.
        sleep: for tests.
    """

    def __init__(
        self,
        access: Access,
        account: QueryAccount,
        answers: Answers,
        attempts: int = ATTEMPTS,
        per_second: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.access, self.account, self.answers = access, account, answers
        self._attempts, self._sleep = attempts, sleep
        self._gap = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self._lock = threading.Lock()
        self.dimensions: int | None = None
        """Of a template, once one was seen."""
        self.reused = 0
        """Answers that were there already."""

    def template(self, picture: bytes) -> NDArray[np.float32]:
        """The template of a picture (PNG), float32 ``D``, unit length.

        Raises:
            BudgetSpent: not asked.
            EndpointError: asked, and counted, without an answer.
        """

        def ask(number: int) -> NDArray[np.float32]:
            return self._template(self.access.template(picture, number))

        value = self._answer("template", hashlib.sha256(picture).hexdigest(), ask)
        self.dimensions = self.dimensions or len(value)
        return value

    def score(self, a: bytes, b: bytes) -> float:
        """The score of two pictures (PNG), in either order.

        Raises:
            BudgetSpent: not asked.
            EndpointError: asked, and counted, without an answer.
        """
        first, second = sorted((a, b), key=lambda picture: hashlib.sha256(picture).digest())
        both = hashlib.sha256(first).digest() + hashlib.sha256(second).digest()

        def ask(number: int) -> NDArray[np.float32]:
            value = _finite(self.access.score(first, second, number), "score")
            if value.ndim:
                raise InvalidAnswer("the endpoint's score is no number")
            return value.reshape(1).astype(np.float32)

        return float(self._answer("score", hashlib.sha256(both).hexdigest(), ask)[0])

    def _answer(
        self, kind: str, content: str, ask: Callable[[int], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        known = self.answers.get(content)
        if known is not None:
            self.reused += 1
            return known
        retrying = Retrying(
            retry=retry_if_exception_type(Unreachable),
            stop=stop_after_attempt(self._attempts),
            wait=_wait,
            sleep=self._sleep,
            reraise=True,
        )
        value = retrying(self._once, kind, content, ask)
        self.answers.put(content, value)
        return value

    def _once(
        self, kind: str, content: str, ask: Callable[[int], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        if self._gap:
            with self._lock:
                now = time.monotonic()
                begin = max(now, self._next)
                self._next = begin + self._gap
            self._sleep(begin - now)
        number = self.account.spend(kind, content)
        try:
            return ask(number)
        except EndpointError as error:
            self.account.failed(number, error.reason)
            raise

    def _template(self, numbers: object) -> NDArray[np.float32]:
        value = _finite(numbers, "template")
        norm = float(np.linalg.norm(value))
        if value.ndim != 1 or not len(value) or norm == 0:
            raise InvalidAnswer("the endpoint's template is empty or zero")
        if self.dimensions is not None and len(value) != self.dimensions:
            raise InvalidAnswer(
                f"the endpoint's template has {len(value)} numbers, others {self.dimensions}"
            )
        return (value / norm).astype(np.float32)


def _finite(numbers: object, what: str) -> NDArray[np.float64]:
    try:
        value = np.asarray(numbers, np.float64)
    except (ValueError, TypeError):
        raise InvalidAnswer(f"the endpoint's {what} is not numeric") from None
    if not np.isfinite(value).all():
        raise InvalidAnswer(f"the endpoint's {what} is NaN or infinite")
    return value


_backoff = wait_exponential_jitter(multiplier=0.5, max=LONGEST_WAIT)


def _wait(state: RetryCallState) -> float:
    """As long as the endpoint asks for, within reason; else longer each time."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, Unreachable) else None
    return min(asked, LONGEST_WAIT) if asked is not None else _backoff(state)
