"""Ray Data: a step for any dataset with a column of pictures, and the engine of ``ppfr sanitize``.

The engine sends a dataset of unit numbers through a pool of actors. Each actor reads, sanitizes and
commits a whole unit and sends back a status. No picture ever enters Ray's object store, which may
spill to disk. Ray is loaded when it is used, not when this module is.
"""

import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import asdict
from typing import Any, cast

from ppfr_ops.engines.session import private_session
from ppfr_ops.errors import EngineError, UserError
from ppfr_ops.memory import ONE_HEAP
from ppfr_ops.sanitize.batch import BatchSanitizer, Rows, made_or_refusing, needs_key
from ppfr_ops.sanitize.job import Job, Status
from ppfr_ops.sanitize.sealing import sealed_job
from ppfr_ops.sanitize.worker import tune_process, worker_of

log = logging.getLogger("ppfr")

START_TRIES = 3


class SanitizeFaces:
    """Sanitizes the batches of any Ray dataset that has a column of pictures of aligned faces.

    ```python
    ds = ds.map_batches(
        SanitizeFaces,
        fn_constructor_kwargs={"identity_column": "who", "key": SharedKey()},
        batch_format="pyarrow",
        batch_size=256,
        concurrency=2,
    )
    ```

    Args:
        options: those of ``ppfr_ops.BatchSanitizer``, which see for input and output. ``threads``
            of the numeric libraries is by default what Ray assigned to the actor. ``key`` is a
            ``SharedKey``, which keeps it out of Ray's object store; or ``identity_key_file``.
    """

    def __init__(self, **options: Any) -> None:
        threads = int(options.pop("threads", 0)) or _assigned_cpus()
        tune_process(threads)

        def make() -> BatchSanitizer:
            key = _given_key(options.pop("key", None), needs_key(**options))
            return BatchSanitizer(threads=threads, key=key, **options)

        self._sanitize = made_or_refusing(make)

    def __call__(self, batch: Rows) -> Rows:
        """Sanitize a batch: an Arrow table or a dict of columns, and the same comes back.

        Raises:
            UserError: the options cannot be used, or the batch has not the columns they name.
        """
        return self._sanitize(batch)


class _KeyHolder:
    """Keeps a key in the memory of one process."""

    def keep(self, key: bytes) -> None:
        self._key = key

    def get(self) -> bytes:
        return self._key


class SharedKey:
    """The ``key`` of ``SanitizeFaces`` for all workers of a Ray job, made by the driver.

    An actor without a name keeps it, on the driver's node and no longer than the driver lives or
    holds this object; what goes through Ray's object store is a handle of the actor.

    Args:
        key: 32 bytes; None: drawn.
    """

    def __init__(self, key: bytes | None = None) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if not ray.is_initialized():
            ray.init()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        holder = ray.remote(_KeyHolder).options(num_cpus=0, scheduling_strategy=here)
        self._holder = cast(Any, holder.remote())
        # Arguments this small go to the actor itself and not through the object store.
        ray.get(self._holder.keep.remote(os.urandom(32) if key is None else key))

    def get(self) -> bytes:
        """The key; for workers."""
        return sys.modules["ray"].get(self._holder.get.remote())


def _given_key(key: SharedKey | bytes | None, needed: bool) -> bytes | None:
    """The key of a worker."""
    if isinstance(key, SharedKey):
        return key.get()
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or not (needed or key):
        return key
    raise UserError(
        ("key: bytes would lie open in Ray's object store" if key else "all workers need one key")
        + '; give "key": SharedKey() of ppfr_ops.engines.ray_data, made in the driver, or '
        "identity_key_file"
    )


def _assigned_cpus() -> int:
    """CPUs of this actor, at least 1; 0 outside of Ray: as the libraries like."""
    ray = sys.modules.get("ray")  # outside of Ray it is not there
    if ray is None or not ray.is_initialized():
        return 0
    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


class _Actor:
    """A Ray actor: a worker, built once."""

    def __init__(self, job_ref: Any, threads: int, folder: str | None) -> None:
        import ray

        if folder is not None:
            os.chdir(folder)
        self._worker = worker_of(ray.get(job_ref[0]), threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        numbers = [int(number) for number in batch["item"]]
        statuses = [asdict(status) for status in self._worker.stream(numbers)]
        return {name: [status[name] for status in statuses] for name in statuses[0]}


def on_ray(
    job: Job,
    todo: list[int],
    actors: int | None,
    gpus: float,
    address: str | None,
    wait: float = 0.0,
) -> Iterator[Status]:
    """Do units on Ray; statuses as they come.

    Args:
        todo: numbers of the units.
        actors: workers; None: one a CPU, or as many as the GPUs carry.
        gpus: of a worker.
        address: of a cluster; None: start one here.
        wait: for a cluster that scales, s.
    """
    with _ray(address), sealed_job(job) as sealed:
        import ray
        import ray.data

        if address is None:  # after the import, which sets levels of its own
            logging.getLogger("ray.data").setLevel(logging.ERROR)
        if wait:
            _scale(min(actors or 1, len(todo)), gpus, wait)
        cluster = ray.cluster_resources()
        cpus = int(cluster.get("CPU", 1))
        if gpus and cluster.get("GPU", 0) < gpus:
            raise UserError(
                f"--gpus-per-actor {gpus:g}: the cluster has {cluster.get('GPU', 0):g} GPUs"
            )
        room = int(cluster["GPU"] / gpus) if gpus else cpus
        count = min(actors or room, len(todo))
        if gpus and count > room:
            raise UserError(f"--actors {count}: the cluster's GPUs carry {room} of {gpus:g} each")
        # More than there is would wait for ever, in silence: a share of the CPUs each, at most 1.
        share = min(1.0, cpus / count)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.target_max_block_size = None
        blocks = _blocks(len(todo), count)
        dataset = ray.data.from_items(todo, override_num_blocks=blocks).map_batches(
            _Actor,
            fn_constructor_args=(
                [ray.put(sealed)],
                max(1, cpus // count),
                os.getcwd() if address is None else None,
            ),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(
                size=count, max_tasks_in_flight_per_actor=_in_flight(blocks, count)
            ),
            num_cpus=share,
            num_gpus=gpus or None,
        )
        for row in dataset.iter_rows():
            yield Status(**row)


def _blocks(units: int, actors: int) -> int:
    """Blocks to make of the units. Where there are many a block holds several, so that an actor
    reads the next and commits the last while it works, and Ray has fewer to keep account of; an
    actor still gets some dozens of blocks, so that all end at about the same time."""
    return -(-units // max(1, min(8, units // (32 * actors))))


def _in_flight(units: int, actors: int) -> int:
    """Units that an actor holds. A second one, waiting, hides the tenth of a second that passes
    until Ray Data hands out the next; but anyone who holds it holds it back from an idle actor,
    which costs half a unit's time at the end. The more units there are, the less that matters."""
    return 1 if units <= 16 * actors else 2


def _scale(actors: int, gpus: float, wait: float) -> None:
    """Ask the cluster for room and wait until it is there; go on with what there is then."""
    import ray
    from ray.autoscaler.sdk import request_resources

    kind, each = ("GPU", gpus) if gpus else ("CPU", 1.0)
    request_resources(bundles=[{kind: each}] * actors)
    log.info(f"asked the cluster for {actors} workers; waiting up to {wait:g} s")
    deadline = time.monotonic() + wait
    while ray.cluster_resources().get(kind, 0) < actors * each and time.monotonic() < deadline:
        time.sleep(1)


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """A connection to a cluster, or a Ray of our own that leaves nothing behind."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    log.info("connecting to Ray" if address else "starting Ray (3 to 5 s)")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        import ray

        with redirect_stdout(sys.stderr):
            ray.init(address=address, **quiet)
            try:
                yield
            finally:
                ray.shutdown()
        return
    # Else its C++ side alarms people about an actor that it could not restart if we let go of it.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Ray gives its workers the lowest priority but four; here they are the work itself.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Nobody reads them: they are served on a port, and cost time in every process.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    for name, value in ONE_HEAP.items():
        os.environ.setdefault(name, value)
    # What workers import is what is imported here; of themselves they look where Ray was started.
    os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    # Ray prints a screenful on stdout for every worker that dies; the statuses say it in a line.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), private_session() as folder:
        import ray

        try:
            _start(folder, quiet)
            yield
        finally:
            ray.shutdown()


def _start(folder: str, quiet: dict[str, Any]) -> None:
    """Start a Ray of our own; it allows itself 30 s, which a busy machine may exceed."""
    import ray

    # Starting is waiting for processes; meanwhile the import that comes next.
    threading.Thread(target=importlib.import_module, args=("ray.data",), daemon=True).start()
    for _ in range(START_TRIES):
        try:
            # Ray lets its workers import from the folder that it is started in, where an input may
            # lie; so they are sent back there when they have imported all.
            with _silent_stderr(), chdir(folder):
                ray.init(
                    address="local",
                    # Ray would count the machine's, and start workers that wait for each other.
                    num_cpus=len(os.sched_getaffinity(0)),
                    include_dashboard=False,
                    _temp_dir=folder,
                    **quiet,
                )
            return
        except Exception:
            ray.shutdown()
    raise EngineError(
        f"Ray did not start, {START_TRIES} times; is the machine overloaded? "
        "What is done is kept; run the same command again to resume"
    )


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing of native code reaches the terminal; exceptions do."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
