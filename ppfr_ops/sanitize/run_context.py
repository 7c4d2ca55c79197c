"""What every way of publishing works with: method, draws, encoding, measures, criteria."""

import hashlib
import hmac
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from ppfr_ops.contracts.policy import Policy
from ppfr_ops.draws import DrawSource, system_draws
from ppfr_ops.imaging.arrays import Faces
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.base import Anonymizer, Context, Output
from ppfr_ops.recognizers import Recognizer
from ppfr_ops.sanitize.acceptance import AcceptanceCriteria
from ppfr_ops.sanitize.items import I, Item
from ppfr_ops.sanitize.measuring import Measuring
from ppfr_ops.sanitize.options import Level

Pseudonymize = Callable[[str], str]


def pseudonyms(key: bytes) -> Pseudonymize:
    """Identities to pseudonyms: HMAC-SHA-256 under the owner's key over ``identity|VALUE``, hex."""

    def pseudonym(identity: str) -> str:
        return hmac.new(key, f"identity|{identity}".encode(), hashlib.sha256).hexdigest()

    return pseudonym


@dataclass(frozen=True)
class RunContext:
    """What is done to every face, whatever it is a part of.

    Args:
        recognizers: FR models to measure with; none is fine.
        draws: where the randomness comes from.
        keep: the columns to copy, with their types.
        pseudonymize: what happens to identities; None: there is no identity column.
        level: ``full``; ``basic``: without ``disclosure`` and ``draw_similarity``; ``none``. What
            is not measured is null.
        max_disclosure: a record above it is drawn again, and a dead letter if no draw helps; None:
            the limit is the method's own, if it has one. What a bound is on is measured at every
            level.
        sample_every: one row in so many is published a second time, for ``draw_similarity``.
        look_every: one photograph in so many is looked at again, for ``residual_faces``.
        policy: a record that falls short of its ``record`` bounds is drawn again too, as often as
            the policy says, and a dead letter if no draw helps.
        same_format: a photograph is stored in the format that it came in, if that is one of ours.
        template: by which the input's faces are aligned (``imaging.templates``); off: they are as
            FR models take them.
        keeps_metrics: False: nobody wants the metrics; only what the judge looks at is measured.
    """

    method: Anonymizer
    encoding: Encoding
    recognizers: Sequence[Recognizer] = ()
    draws: DrawSource = system_draws
    keep: Sequence[pa.Field] = ()
    pseudonymize: Pseudonymize | None = None
    batch_size: int = 32
    level: Level = "full"
    max_disclosure: float | None = None
    policy: Policy | None = None
    sample_every: int = 1
    look_every: int = 1
    keeps_metrics: bool = True
    same_format: bool = False
    template: str = "off"
    _one: threading.RLock = field(default_factory=threading.RLock, init=False, compare=False)
    """Held while the method works: it need not bear two threads."""

    def encoding_of(self, item: Item) -> Encoding:
        """How what becomes of a photograph is stored."""
        return replace(self.encoding, format=item.format) if self.same_format else self.encoding

    @cached_property
    def criteria(self) -> AcceptanceCriteria:
        return AcceptanceCriteria.of(self.method, self.max_disclosure, self.policy)

    @cached_property
    def measuring(self) -> Measuring:
        only = None if self.keeps_metrics else self.criteria.metrics
        return Measuring(self.level, tuple(self.recognizers), only, self.criteria.metrics)

    def compared(self, items: Sequence[Item]) -> list[int]:
        """Places of the items that the measure which compares two draws is taken on."""
        return sampled(items, self.sample_every) if self.measuring.compares_draws else []

    def looked_at(self, items: Sequence[Item]) -> list[int]:
        """Places of the photographs that the detector sees once more."""
        return sampled(items, self.look_every)

    def alone(self) -> AbstractContextManager[Any]:
        """While the method works outside of ``publish``: it need not bear two threads."""
        return self._one

    def forget(self) -> None:
        """Let the method drop what it kept of a unit."""
        with self._one:
            self.method.forget()

    def context(self, found: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the method may know of a row: of a person, if it does not read faces, the pseudonym
        alone, which is all that the plan of a release has; without a label, of somebody new."""
        if self.method.reads_faces or "identity" not in found:
            return found
        label = found["identity"]
        named = label is not None and self.pseudonymize is not None
        person = self.pseudonymize(label) if named and self.pseudonymize else os.urandom(32).hex()
        return {**found, "identity": person}

    def publish(
        self, faces: Faces, ids: Sequence[str], context: Sequence[Item], draw: int
    ) -> Output:
        """The method on faces; on blank ones, if it does not read them.

        Args:
            faces: uint8 ``N x 112 x 112 x 3``.
            ids: of the faces, ``N``; seeded draws depend on them.
            context: the items that they are of, ``N``.
            draw: its number; 0 is what is published if nothing is wrong with it, 1 what measures
                compare it with.
        """
        # Of a photograph nobody is named: its label is not that of each of its faces.
        names = self.method.needed_context() if context else ()
        wanted = {name: [item.context.get(name) for item in context] for name in names}
        draws = self.draws(ids, self.method.draw_size, draw)
        if None in wanted.get("look", ()):  # of a photo, and not of the plan of a release
            wanted["look"] = list(self.method.context_of(faces, ())["look"])
        if not self.method.reads_faces:
            faces = np.zeros_like(faces)
        with self._one:
            return self.method.publish(faces, draws, Context(wanted))


def sampled(items: Sequence[Item], every: int) -> list[int]:
    """For what tells of the method, not of the record; by place, which draws nothing."""
    return [n for n, item in enumerate(items) if item.row % every == 0]


def batches(items: Iterator[I], size: int) -> Iterator[list[I]]:
    """Items, ``size`` at a time."""
    batch: list[I] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
