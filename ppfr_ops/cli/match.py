"""``ppfr match``: a gallery that can be asked without showing it a face, or being shown one."""

import secrets
import shutil
import signal
from pathlib import Path
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.options import options_of, validated
from ppfr_ops.cli.terminal import echo
from ppfr_ops.cli.terminal import log as say
from ppfr_ops.errors import UserError
from ppfr_ops.match.accounts import MatchPolicy

NO_MATCH = 10
RESERVED = ("owner",)

EXAMPLES = """
\b
Examples:
  ppfr match keygen keys/
  ppfr match enrol 'faces/*.parquet' gallery/ --keys keys/owner --identity-column identity
  ppfr match serve gallery/ --keys keys/owner --threshold 0.9
  ppfr match query probe.png --keys keys/client --server localhost:7443
  ppfr match query probe.png --keys keys/client --server localhost:7443 --name person003
"""


_folder = click.Path(file_okay=False, path_type=Path)
_file = click.Path(dir_okay=False, path_type=Path)
_keys = click.option("--keys", type=_folder, required=True, help="Folder of keys, from keygen.")
_fr = click.option(
    "--fr",
    default="dct",
    metavar="NAME=PATH",
    help="FR model, as for sanitize; dct is none, and only good for trying out.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXAMPLES)
def main() -> None:
    """Ask an encrypted gallery whether a face is in it, and learn only that.

    Exit codes of query: 0 match, 10 no match, 2 refused or wrong usage, 1 else.
    """


@main.command(cls=Command)
@click.argument("folder", type=_folder)
@click.option("--client", "clients", multiple=True, help="Name of a client; may be repeated.")
@click.option("--host", "hosts", multiple=True, help="Name or address that the server goes by.")
@click.option("--token", is_flag=True, help="Let clients in by token instead of certificate.")
@click.option(
    "--admit",
    type=_file,
    help="Let in a client that made its own keys: its certificate. Needs one --client.",
)
def keygen(
    folder: Path, clients: tuple[str, ...], hosts: tuple[str, ...], token: bool, admit: Path | None
) -> int:
    """Make keys: FOLDER/owner for the server, FOLDER/<client> for every client.

    Where FOLDER/owner is there already, clients are added to it. In earnest a client runs keygen
    itself, keeps its folder, and sends client.crt alone for the owner to --admit.
    """
    from ppfr_ops.match.keys import ClientFolder, OwnerFolder, write_private

    path = folder / "owner"
    owner = OwnerFolder(path)
    if not (path / "clients.json").exists():
        owner = OwnerFolder.create(path, list(hosts) or ["localhost", "127.0.0.1"])
    if admit is not None:
        if len(clients) != 1 or not admit.is_file():
            raise UserError("--admit takes the certificate of one --client")
        owner.admit(clients[0], certificate=admit.read_bytes())
        echo(f"{clients[0]} is let in")
        return 0
    for name in clients or ("client",):
        if not name.replace("-", "").replace("_", "").isalnum() or name in RESERVED:
            raise UserError(f"client {name!r}: letters, digits, - and _; not owner")
        client = ClientFolder.create(folder / name, name)
        if token:
            drawn = secrets.token_bytes(32)
            write_private(client.path / "token", drawn.hex().encode())
            (client.path / "client.key").unlink()
            (client.path / "client.crt").unlink()
            owner.admit(name, token=drawn)
        else:
            owner.admit(name, certificate=(client.path / "client.crt").read_bytes())
        shutil.copyfile(path / "server.crt", client.path / "server.crt")
    echo(f"keys of the owner and of {len(clients) or 1} client in {folder.name}/")
    return 0


@main.command(cls=Command)
@click.argument("inputs", nargs=-1, required=True)
@click.argument("folder", type=_folder)
@_keys
@_fr
@click.option("--identity-column", help="Column that says whose a picture is.")
@click.option("--image-column", default="image")
@click.option("--names", type=_file, help="JSON list of names, for templates in .npy.")
def enrol(
    inputs: tuple[str, ...],
    folder: Path,
    keys: Path,
    fr: str,
    identity_column: str | None,
    image_column: str,
    names: Path | None,
) -> int:
    """Make a gallery, encrypted at rest, of Parquet files of aligned faces, or of one .npy file.

    Templates of pictures that are published need no gallery: anyone can compute them.
    """
    import glob

    from ppfr_ops.match.gallery import Gallery
    from ppfr_ops.match.keys import OwnerFolder
    from ppfr_ops.match.packing import quantise
    from ppfr_ops.match.templates import Embedder, from_array, from_parquet
    from ppfr_ops.match.transport import gallery_path
    from ppfr_ops.methods.base import file_digest

    paths = [Path(name) for text in inputs for name in sorted(glob.glob(text)) or [text]]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise UserError(f"no file {missing[0]}")
    key = OwnerFolder(keys).gallery_key()
    if paths[0].suffix == ".npy":
        if len(paths) > 1:
            raise UserError("one .npy file makes a gallery")
        # The FR model of ready-made templates is unknown: the file stands for it.
        enrolled, digest = from_array(paths[0], names), f"templates:{file_digest(paths[0])}"
    else:
        embedder = Embedder(fr)
        enrolled = from_parquet(paths, embedder, image_column, identity_column)
        digest = embedder.digest
    if not len(enrolled.templates):
        raise UserError("no template could be enrolled")
    folder.mkdir(parents=True, exist_ok=True)
    gallery = Gallery(quantise(enrolled.templates), enrolled.names, digest)
    gallery.save(gallery_path(folder), key)
    count, dimensions = enrolled.templates.shape
    known = len(set(enrolled.names))
    echo(f"{count} templates of {dimensions} numbers, {known} names, in {folder.name}/")
    if enrolled.skipped:
        shown = ", ".join(map(str, enrolled.skipped[:20]))
        more = "" if len(enrolled.skipped) <= 20 else ", …"
        echo(f"{len(enrolled.skipped)} rows gave no template: {shown}{more}", err=True)
    return 0


@main.command(cls=Command)
@click.argument("folder", type=_folder)
@_keys
@click.option("--listen", default="127.0.0.1:7443", metavar="HOST:PORT")
@options_of(MatchPolicy)
@click.option(
    "--partitions",
    type=click.IntRange(0),
    default=0,
    help="Ray actors that the gallery is spread over; 0 is this process, without Ray.",
)
def serve(folder: Path, keys: Path, listen: str, partitions: int, **policy: Any) -> int:
    """Answer queries to the gallery in FOLDER until stopped.

    Budgets are kept in FOLDER/audit.jsonl, which is appended to before a query is answered.
    """
    from ppfr_ops.match.accounts import Accounts, AuditLog
    from ppfr_ops.match.gallery import Gallery
    from ppfr_ops.match.keys import OwnerFolder
    from ppfr_ops.match.server import Matcher, Scorer
    from ppfr_ops.match.transport import Server, gallery_path, parse_address

    owner = OwnerFolder(keys)
    gallery = Gallery.load(gallery_path(folder), owner.gallery_key())
    log = AuditLog(folder / "audit.jsonl")
    scorer: Scorer | None = None
    if partitions:
        from ppfr_ops.engines.ray_match import RayScorer

        scorer = RayScorer(gallery, partitions)
    matcher = Matcher(gallery, Accounts(validated(MatchPolicy, policy), log), scorer)
    server = Server(matcher, owner, parse_address(listen), log=say)
    host, port = server.address
    echo(f"serving on {host}:{port}; audit log at line {log.lines}, head {log.head[:16]}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.run()
    except KeyboardInterrupt:
        echo(f"stopped; audit log at line {log.lines}, head {log.head[:16]}")
    return 0


@main.command(cls=Command)
@click.argument("probe", type=_file)
@_keys
@_fr
@click.option("--server", default="localhost:7443", metavar="HOST:PORT")
@click.option("--name", help="Verify against the records of this name; without it: identify.")
@click.option("--row", type=click.IntRange(0), default=0, help="Row of a Parquet or .npy file.")
@click.option(
    "--most-mib",
    type=click.IntRange(1),
    default=512,
    help="Give up before a query that would move more; 700 for a gallery of 10^6 x 128.",
)
def query(
    probe: Path, keys: Path, fr: str, server: str, name: str | None, row: int, most_mib: int
) -> int:
    """Ask whether the face in PROBE matches: an aligned picture, a Parquet or an .npy file."""
    from ppfr_ops.match.keys import ClientFolder
    from ppfr_ops.match.packing import quantise
    from ppfr_ops.match.templates import Embedder
    from ppfr_ops.match.templates import probe as read_probe
    from ppfr_ops.match.transport import parse_address
    from ppfr_ops.match.transport import query as ask

    embedder = None if probe.suffix == ".npy" else Embedder(fr)
    template = quantise(read_probe(probe, embedder, row))[0]
    digest = embedder.digest if embedder else None
    where, most = parse_address(server), most_mib << 20
    outcome = ask(where, ClientFolder(keys), template, name, digest, most)
    told = f": records {', '.join(map(str, outcome.records))}" if outcome.records else ""
    echo(f"match{told}" if outcome.match else "no match")
    return 0 if outcome.match else NO_MATCH
