"""The child of ``isolation``: it reads the unit once and sanitizes the ranges it is asked for."""

import pickle
import sys
from multiprocessing.connection import Connection

from ppfr_ops.errors import describe
from ppfr_ops.sandbox import die_with_parent, go_first
from ppfr_ops.sanitize.sealing import opened
from ppfr_ops.sanitize.worker import build_sanitizer, reader_of, tune_process
from ppfr_ops.store.ledger import Ledger


def serve(pipe: Connection) -> None:
    """Answer until the other side closes the pipe."""
    die_with_parent()
    go_first()
    try:
        sealed, key, ordinal, threads = pickle.loads(pipe.recv_bytes())
        job = opened(sealed, key)
        tune_process(threads)
        sanitizer = build_sanitizer(job, threads)
        unit = job.plan.units[ordinal]
        table = reader_of(job, Ledger(job.options.output))(unit)
        answer: object = table.num_rows
        while True:
            pipe.send_bytes(pickle.dumps(answer))
            start, stop = pickle.loads(pipe.recv_bytes())
            answer = sanitizer(table.slice(start, stop - start), unit.id)
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        pipe.send_bytes(pickle.dumps(describe(error)))


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
