"""A unit's table goes in; records, metrics and dead letters come out. No engine, files or clock.

For every row: decode, anonymize, encode, decode what was encoded, measure. Nothing but the encoded
output of the method is ever put into a record.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ppfr_ops.contracts.dead_letters import DEAD_LETTERS_SCHEMA, REASONS
from ppfr_ops.contracts.metrics import metrics_schema
from ppfr_ops.contracts.policy import Bound, Policy
from ppfr_ops.contracts.records import IMAGE_TYPE, records_schema
from ppfr_ops.draws import DrawSource, system_draws
from ppfr_ops.imaging import measures as metrics
from ppfr_ops.imaging.arrays import FACE_SIZE, Faces
from ppfr_ops.imaging.codec import Encoding, ImageError, decode
from ppfr_ops.methods.base import Anonymizer
from ppfr_ops.recognizers import Recognizer
from ppfr_ops.source.plan import READ_ERROR
from ppfr_ops.store.ledger import Tables

Level = Literal["full", "basic", "none"]
Pseudonymize = Callable[[str], str]

REDRAWS = 4
"""Fresh draws that a record gets which shows more than allowed."""


def pseudonyms(key: bytes) -> Pseudonymize:
    """Identities to pseudonyms: HMAC-SHA-256 under the owner's key over ``identity|VALUE``, hex."""

    def pseudonym(identity: str) -> str:
        return hmac.new(key, f"identity|{identity}".encode(), hashlib.sha256).hexdigest()

    return pseudonym


Metrics = dict[str, NDArray[np.float32]]
"""By name; one value a record."""


@dataclass(frozen=True)
class Item:
    """What becomes one record: an aligned face, or a photograph; of one row."""

    record_id: str
    row: int
    pixels: NDArray[np.uint8]


I = TypeVar("I", bound=Item)  # noqa: E741


@dataclass
class Results(Generic[I]):
    """What a unit's rows have become so far."""

    items: list[I] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    metrics: list[Metrics] = field(default_factory=list)
    dead: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Row and letter."""

    def bury(self, record_id: str, row: int, unit: str, code: str, detail: str = "") -> None:
        reason = REASONS[code]
        message = f"{reason.text}: {detail}" if detail else reason.text
        letter = {
            "record_id": record_id,
            "unit": unit,
            "stage": reason.stage,
            "code": code,
            "message": message,
        }
        self.dead.append((row, letter))

    def dead_letters(self) -> pa.Table:
        letters = [letter for _, letter in sorted(self.dead, key=lambda item: item[0])]
        return pa.Table.from_pylist(letters, DEAD_LETTERS_SCHEMA)


def measure(
    originals: Faces, published: Faces, again: Faces | None
) -> dict[str, NDArray[np.float32]]:
    """The measures of ``ppfr_ops.contracts.metrics.MEASURES``, each ``N``.

    Args:
        originals, published, again: uint8 ``N x H x W x 3``; ``published`` and ``again`` are
            decoded from what was encoded, ``again`` with another draw. Without ``again`` only the
            quick measures are taken.
    """
    with torch.inference_mode():
        x, y = _tensor(originals), _tensor(published)
        ssim, ms_ssim = metrics.ssim_and_ms_ssim(x, y)
        values = {
            "ssim": ssim,
            "ms_ssim": ms_ssim,
            "psnr": metrics.psnr(x, y),
            "lowfreq_corr": metrics.lowfreq_corr(x, y),
        }
        if again is not None:
            values["disclosure"] = metrics.disclosure(x, y)
            values["draw_similarity"] = metrics.disclosure(y, _tensor(again))
        return {name: value.cpu().numpy() for name, value in values.items()}


def _tensor(faces: Faces) -> torch.Tensor:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.from_numpy(faces).to(device).permute(0, 3, 1, 2).contiguous().float() / 255


class Failed(Exception):
    """A batch failed at some stage; ``code`` says at which."""

    def __init__(self, code: str) -> None:
        self.code = code


class Base(Generic[I]):
    """What sanitizing aligned faces and photographs has in common: batches that fail are halved
    down to the culprit, records that show too much are buried, tables are put together.

    Subclasses say what the items of a unit are (``_items``), and make and measure the pictures of
    some of them (``_attempt``).

    Args:
        anonymizer: the method.
        encoding: how pictures are stored.
        recognizers: FR models to measure with; none is fine.
        draws: where the randomness comes from.
        keep: the columns to copy, with their types.
        pseudonymize: what happens to identities; None: there is no identity column.
        batch_size: faces a batch.
        level: ``full``; ``basic``: without ``disclosure`` and ``draw_similarity``; ``none``. What
            is not measured is null.
        max_disclosure: a record above it is drawn again, and buried if no draw helps; None: the
            limit is the method's own, which may be none. Needs level ``full``.
        policy: a record that falls short of its ``record`` bounds is drawn again too, as often as
            the policy says, and buried if no draw helps.
    """

    def __init__(
        self,
        anonymizer: Anonymizer,
        encoding: Encoding,
        recognizers: Sequence[Recognizer] = (),
        *,
        draws: DrawSource = system_draws,
        keep: Sequence[pa.Field] = (),
        pseudonymize: Pseudonymize | None = None,
        batch_size: int = 32,
        level: Level = "full",
        max_disclosure: float | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.anonymizer = anonymizer
        self.encoding = encoding
        self.recognizers = tuple(recognizers)
        self.draws = draws
        self.keep = tuple(keep)
        self.pseudonymize = pseudonymize
        self.batch_size = batch_size
        self.level = level
        limit = anonymizer.disclosure_limit if max_disclosure is None else max_disclosure
        self.bounds: list[tuple[str, Bound, str]] = []
        """Metric, what a record must meet, and the code of a record that never does."""
        if limit is not None:
            self.bounds.append(("disclosure", Bound(sign="<=", value=limit), "too_disclosing"))
        if policy is not None:
            self.bounds += [(name, bound, "below_policy") for name, bound in policy.record.items()]
        self.redraws = REDRAWS if policy is None else policy.redraws
        names = [recognizer.name for recognizer in recognizers]
        self.records_schema = records_schema(keep, pseudonymize is not None)
        self.metrics_schema = metrics_schema(names)

    def __call__(self, table: pa.Table, unit: str) -> Tables:
        """Sanitize a unit.

        Args:
            table: as ``units.read_unit`` gives it.
            unit: id of the unit, for the dead letters.

        Returns:
            Records, metrics and dead letters, in the order of the rows; every row is in the
            records or in the dead letters.
        """
        results: Results[I] = Results()
        for batch in self._batches(self._items(table, unit, results)):
            self._publish(batch, unit, results)
        return self._tables(table, results)

    def bury(self, record_ids: Sequence[str], unit: str, code: str) -> Tables:
        """Records that all became dead letters for one and the same reason."""
        results: Results[I] = Results()
        for row, record_id in enumerate(record_ids):
            results.bury(record_id, row, unit, code)
        return Tables(
            self.records_schema.empty_table(),
            self.metrics_schema.empty_table(),
            results.dead_letters(),
            self._detections(results),
        )

    def _items(self, table: pa.Table, unit: str, results: Results[I]) -> Iterator[I]:
        raise NotImplementedError

    def _attempt(self, batch: list[I]) -> tuple[list[bytes], Metrics]:
        """Encoded pictures and their metrics.

        Raises:
            Failed: with the reason code.
        """
        raise NotImplementedError

    def _batches(self, items: Iterator[I]) -> Iterator[list[I]]:
        batch: list[I] = []
        for item in items:
            batch.append(item)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _decoded(
        self, table: pa.Table, unit: str, results: Results[I], size: tuple[int, int] | None
    ) -> Iterator[Item]:
        """Rows that can be read, as pictures; the others are buried."""
        columns = (table[name] for name in ("record_id", "image", READ_ERROR))
        for row, values in enumerate(zip(*columns, strict=True)):
            record_id, picture, read_error = (value.as_py() for value in values)
            if read_error is not None:
                results.bury(record_id, row, unit, read_error)
            elif picture is None:
                results.bury(record_id, row, unit, "no_bytes")
            else:
                try:
                    pixels = decode(picture, size=size)
                except ImageError as error:
                    results.bury(record_id, row, unit, error.code, error.detail)
                else:
                    yield Item(record_id, row, pixels)

    def _publish(self, batch: list[I], unit: str, results: Results[I]) -> None:
        """Append a batch to the results; a batch that fails is halved down to the culprit."""
        try:
            images, measured = self._attempt(batch)
        except Failed as failed:
            if len(batch) == 1:
                results.bury(batch[0].record_id, batch[0].row, unit, failed.code)
                return
            middle = len(batch) // 2
            self._publish(batch[:middle], unit, results)
            self._publish(batch[middle:], unit, results)
            return
        fit = np.ones(len(batch), bool)
        for name, bound, code in self._bounds(measured):
            for index in np.flatnonzero(fit):
                value = float(measured[name][index])
                if not self._holds(bound, value):
                    detail = f"{name} {value:.3f}, required {bound}"
                    item = batch[int(index)]
                    results.bury(item.record_id, item.row, unit, code, detail)
                    fit[index] = False
        kept = np.flatnonzero(fit)
        results.items += [batch[i] for i in kept]
        results.images += [images[i] for i in kept]
        results.metrics.append({name: values[kept] for name, values in measured.items()})

    def _holds(self, bound: Bound, value: float) -> bool:
        return bound.holds(value)

    def _bounds(self, measured: Mapping[str, NDArray[np.float32]]) -> list[tuple[str, Bound, str]]:
        """Those whose metric is measured."""
        return [bound for bound in self.bounds if bound[0] in measured]

    def _lack(self, measured: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float64]:
        """How far every record is from meeting all bounds, summed; 0: it meets them; ``N``."""
        count = len(next(iter(measured.values())))
        total = np.zeros(count)
        for name, bound, _ in self._bounds(measured):
            values = measured[name].astype(np.float64)
            missing = np.array([0 if bound.holds(value) else 1 for value in values.tolist()])
            total += missing * (1e-9 + np.abs(values - bound.value))
        return total

    def _compare(self, originals: Faces, seen: Faces, again: Faces | None) -> Metrics:
        """All metrics of faces; ``again``: by another draw, None: do not compare with one."""
        measured = measure(originals, seen, again)
        for recognizer in self.recognizers:
            templates = recognizer.embed(originals), recognizer.embed(seen)
            cosine = np.einsum("nd,nd->n", *templates)
            measured[f"id_cosine_{recognizer.name}"] = np.clip(cosine, -1, 1)
        return measured

    def _by_method(self, faces: Faces, ids: Sequence[str], draw: int) -> Faces:
        draws = self.draws(ids, self.anonymizer.draw_size, draw)
        published = self.anonymizer(faces, draws)
        if published.shape != faces.shape or published.dtype != np.uint8:
            raise ValueError("the method gave another shape or dtype")
        return published

    def _detections(self, results: Results[I]) -> pa.Table | None:
        return None

    def _face_columns(self, results: Results[I]) -> list[pa.Array]:
        """What ``data/`` says of a face's place in its photograph."""
        return []

    def _tables(self, table: pa.Table, results: Results[I]) -> Tables:
        rows = pa.array([item.row for item in results.items], pa.int64())
        names = [item.record_id for item in results.items]
        ids = pa.array(names, pa.string())
        pictures = pa.StructArray.from_arrays(
            [
                pa.array(results.images, pa.binary()),
                pa.array([f"{name}{self.encoding.suffix}" for name in names], pa.string()),
            ],
            fields=list(IMAGE_TYPE),
        )
        columns: list[pa.Array | pa.ChunkedArray] = [ids, pictures]
        if self.pseudonymize is not None:
            identities = table["identity"].take(rows).to_pylist()
            hidden = [None if name is None else self.pseudonymize(name) for name in identities]
            columns.append(pa.array(hidden, pa.string()))
        columns += self._face_columns(results)
        columns += [table[f"keep.{item.name}"].take(rows) for item in self.keep]
        measured = []
        for item in list(self.metrics_schema)[1:]:
            parts = [part[item.name] for part in results.metrics if item.name in part]
            if parts:
                measured.append(column(np.concatenate(parts), item.type))
            else:
                measured.append(pa.nulls(len(ids), item.type))
        return Tables(
            pa.table(columns, schema=self.records_schema),
            pa.table([ids, *measured], schema=self.metrics_schema),
            results.dead_letters(),
            self._detections(results),
        )


def column(values: NDArray[np.float32], kind: pa.DataType) -> pa.Array:
    """Figures as Arrow has them; NaN, which is what there is nothing to measure on, as null."""
    floats = pa.array(values, pa.float32(), from_pandas=True)
    return floats if kind == pa.float32() else floats.cast(kind)


class Sanitizer(Base[I]):
    """Sanitizes aligned faces; one record a row."""

    def _items(self, table: pa.Table, unit: str, results: Results[I]) -> Iterator[I]:
        yield from cast(Iterator[I], self._decoded(table, unit, results, (FACE_SIZE, FACE_SIZE)))

    def _attempt(self, batch: list[I]) -> tuple[list[bytes], Metrics]:
        originals = np.stack([item.pixels for item in batch])
        stage = "method_failed"
        # Method, encoder and models are others' code: whatever they raise is one record's failure.
        try:
            published = self._anonymize(originals, batch, 0)
            again = published
            if self.level == "full" and self.anonymizer.draw_size:
                again = self._anonymize(originals, batch, 1)
            stage = "encoder_failed"
            images = [self.encoding.encode(face) for face in published]
            stage = "not_measured"
            measured = self._measure(originals, images, None if again is published else again)
            stage = "method_failed"
            self._draw_again(originals, again, batch, images, measured)
        except Exception:
            raise Failed(stage) from None
        return images, measured

    def _draw_again(
        self,
        originals: Faces,
        again: Faces,
        batch: Sequence[I],
        images: list[bytes],
        measured: Metrics,
    ) -> None:
        """Replace, in place, what falls short by a fresh draw that falls less short."""
        if not self._bounds(measured) or not self.anonymizer.draw_size:
            return
        for draw in range(2, 2 + self.redraws):
            lack = self._lack(measured)
            over = np.flatnonzero(lack > 0)
            if len(over) == 0:
                return
            fresh = self._anonymize(originals[over], [batch[int(i)] for i in over], draw)
            encoded = [self.encoding.encode(face) for face in fresh]
            better = self._measure(originals[over], encoded, again[over])
            fresh_lack = self._lack(better)
            for place, index in enumerate(over):
                if fresh_lack[place] < lack[index]:
                    images[index] = encoded[place]
                    for name, values in better.items():
                        measured[name][index] = values[place]

    def _measure(self, originals: Faces, images: Sequence[bytes], again: Faces | None) -> Metrics:
        """Every metric on what a reader of the output decodes."""
        if self.level == "none":
            return {}
        seen = np.stack([self.encoding.decode(data) for data in images])
        if self.level == "basic":
            return self._compare(originals, seen, None)
        return self._compare(
            originals, seen, seen if again is None else self.encoding.round_trip(again)
        )

    def _anonymize(self, faces: Faces, batch: Sequence[I], draw: int) -> Faces:
        return self._by_method(faces, [item.record_id for item in batch], draw)
