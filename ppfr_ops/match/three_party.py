"""The three-party form: client, server and a helper compare by MPyC (Shamir's secret sharing).

Nobody learns anything but the client its bit, as long as the three follow the protocol and no two
of them put together what they saw: threshold t = 1 of m = 3. MPyC with two parties runs with t = 0,
that is without any privacy, and says nothing; so both numbers are checked before a value is shared.

MPyC's runtime is one a process and reads ``sys.argv``, so each party is a process of its own:
``python -m ppfr_ops.match.three_party INDEX HOST:PORT HOST:PORT HOST:PORT``, with its values on
stdin, the client's bit on stdout, and certificates in ``.config`` of its working directory, which
MPyC wants there.
"""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bfv import SCORE_BITS
from .comparison import DROPPED_BITS, LOW_BITS
from .errors import MatchError
from .packing import MAX_RECORDS

CLIENT, SERVER, HELPER = range(3)
PARTIES, THRESHOLD = 3, 1
TIMEOUT = 600.0
CONFIG = ".config"


def server_values(
    masks: NDArray[np.int64], threshold: int, counted: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """What the server puts in, ``n x 3``: low bits, highest bit turned round, whether it counts."""
    shifted = (masks + threshold + (1 << (DROPPED_BITS - 1))) % (1 << SCORE_BITS)
    return np.column_stack([*_split(shifted, flip=1), counted.astype(np.int64)])


def client_values(masked: NDArray[np.int64]) -> NDArray[np.int64]:
    """What the client puts in, ``n x 2``: low bits and highest bit of score plus mask."""
    return np.column_stack(_split(masked, flip=0))


def _split(values: NDArray[np.int64], flip: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    low = (values >> DROPPED_BITS) & ((1 << LOW_BITS) - 1)
    return low, (values >> (SCORE_BITS - 1)) ^ flip


def run_party(
    index: int,
    addresses: list[str],
    folder: Path,
    values: NDArray[np.int64] | None = None,
    timeout: float | None = TIMEOUT,
    tls: bool = True,
) -> bool | None:
    """Take part once.

    Args:
        index: CLIENT, SERVER or HELPER.
        addresses: ``host:port`` of client, server and helper. The client's is not listened on;
            server and helper listen on their own host and on no other interface.
        folder: holds ``.config`` with certificates.
        values: of :func:`client_values` or :func:`server_values`; None for the helper.

    Returns:
        The bit for the client, None for the others.

    Raises:
        MatchError: no certificates, or the parties did not finish.
    """
    if tls and not (folder / CONFIG / f"party_{index}.crt").is_file():
        raise MatchError(f"no certificate of a party in {folder.name}/: keygen --three-party")
    command = [sys.executable, "-m", __name__, str(index), *addresses]
    data = b"" if values is None else np.ascontiguousarray(values, "<i8").tobytes()
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PPFR_MATCH_TLS": str(int(tls))}
    try:
        done = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            timeout=timeout,
            check=True,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        raise MatchError("the three parties did not finish") from None
    if index != CLIENT:
        return None
    if done.stdout.strip() not in (b"0", b"1"):
        raise MatchError("the three parties did not finish")
    return done.stdout.strip() == b"1"


def check_privacy(parties: int, threshold: int) -> None:
    """Raises MatchError: not three parties of which one alone learns nothing."""
    if (parties, threshold) != (PARTIES, THRESHOLD):
        raise MatchError(
            f"{parties} parties with threshold {threshold}: private are {PARTIES} with {THRESHOLD}"
        )


async def any_match(mpc: Any, values: NDArray[np.int64]) -> bool | None:
    """Whether anything matches; the client gets it, the others None.

    A record matches if the highest bits of client and server and "low bits of the client are less
    than those of the server" have odd parity (docs/match.md), the server's bit being turned round.
    """
    check_privacy(len(mpc.parties), mpc.threshold)
    count = await mpc.transfer(len(values) if mpc.pid == SERVER else None, senders=SERVER)
    if not 1 <= count <= MAX_RECORDS or (mpc.pid == CLIENT and count != len(values)):
        raise MatchError("the parties do not speak of the same records")
    integer = mpc.SecInt(32)

    def given(column: int, sender: int) -> Any:
        mine = values[:, column] if mpc.pid == sender else np.zeros(count, np.int64)
        return mpc.input(integer.array(mine.astype(object)), senders=sender)

    low, high = given(0, CLIENT), given(1, CLIENT)
    their_low, their_high, counted = (given(column, SERVER) for column in range(3))
    less = mpc.np_sgn(low - their_low, l=LOW_BITS + 1, LT=True)
    parity = high + their_high - 2 * high * their_high
    parity = parity + less - 2 * parity * less
    total = mpc.np_sum(parity * counted)
    found = await mpc.output(1 - mpc.is_zero(total), receivers=CLIENT)
    return None if found is None else bool(int(found))


def _main() -> None:
    index, addresses, tls = int(sys.argv[1]), sys.argv[2:], os.environ["PPFR_MATCH_TLS"] == "1"
    parties = [word for address in addresses for word in ("-P", address)]
    options = ["-I", str(index), "-T", str(THRESHOLD), "--no-log", *(["--ssl"] if tls else [])]
    sys.argv = [sys.argv[0], *parties, *options]
    from mpyc.runtime import mpc

    # MPyC gives no host, and would listen on every interface.
    loop, host = mpc._loop, mpc.parties[mpc.pid].host
    loop.create_server = partial(loop.create_server, host=host)
    columns = {CLIENT: 2, SERVER: 3, HELPER: 1}[index]
    values = np.frombuffer(sys.stdin.buffer.read(), "<i8").reshape(-1, columns)

    async def take_part() -> None:
        check_privacy(len(mpc.parties), mpc.threshold)
        await mpc.start()
        found = await any_match(mpc, values)
        await mpc.shutdown()
        if found is not None:
            print(int(found), flush=True)

    mpc.run(take_part())


if __name__ == "__main__":
    _main()
