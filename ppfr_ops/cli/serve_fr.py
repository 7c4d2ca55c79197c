"""``ppfr serve-fr``: a recogniser that can be asked over HTTP."""

import signal
import threading
from pathlib import Path

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.terminal import echo
from ppfr_ops.errors import UserError

EXAMPLES = """
\b
Examples:
  ppfr serve-fr sface=sface.onnx
  ppfr serve-fr sface=sface.onnx --listen 127.0.0.1:8123 --scores-only --token-file token
"""

TOKEN_FILE = click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the token that clients bear; for its owner only.",
)


def read_token(path: Path | None) -> str | None:
    """The token in a file. Raises UserError: open to others, or not one word of ASCII."""
    from ppfr_ops.store.private import read_private

    if path is None:
        return None
    text = read_private(str(path), "the token file").decode("ascii", "replace").strip()
    if not text or not text.isascii() or len(text.split()) != 1:
        raise UserError("the token file holds no token: one word of ASCII")
    return text


@click.command(cls=Command, epilog=EXAMPLES)
@click.argument("model", metavar="NAME=PATH")
@click.option("--listen", default="127.0.0.1:8113", metavar="HOST:PORT")
@click.option("--scores-only", is_flag=True, help="Answer pairs with a score, never a template.")
@click.option("--anywhere", is_flag=True, help="Listen on an address beyond this machine, too.")
@click.option("--threads", type=click.IntRange(1), default=1)
@TOKEN_FILE
def main(
    model: str,
    listen: str,
    scores_only: bool,
    anywhere: bool,
    threads: int,
    token_file: Path | None,
) -> int:
    """Serve the FR model in PATH until stopped, as schemas/fr-endpoint.v1.openapi.json says.

    For tests and demonstrations. Plain HTTP on this machine only; beyond it, put a server that
    speaks TLS in front. Nothing that is asked is kept; GET /v1/info counts the queries.
    """
    from ppfr_ops.lab.queries.server import RecognizerServer
    from ppfr_ops.recognizers import Recognizer, RecognizerSpec

    host, colon, port = listen.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 65536):
        raise UserError(f"--listen {listen}: expected HOST:PORT")
    recognizer = Recognizer(RecognizerSpec.parse(model), threads)
    address = (host.strip("[]"), int(port))
    server = RecognizerServer(recognizer, address, scores_only, read_token(token_file), anywhere)
    where = ":".join(map(str, server.address))
    echo(f"serving {recognizer.name} on http://{where}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(1)
    except KeyboardInterrupt:
        server.close()
        echo(f"stopped after {len(server.received):,} queries")
    return 0
