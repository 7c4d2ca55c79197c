"""``ppfr distill``: a surrogate of a recogniser that can only be asked."""

from pathlib import Path
from typing import Any

import click

from ppfr_ops.cli import Command
from ppfr_ops.cli.serve_fr import TOKEN_FILE, read_token
from ppfr_ops.cli.terminal import echo, log
from ppfr_ops.errors import UserError

EXAMPLES = """
\b
Examples:
  # the licensee's recogniser, 4,000 queries at most, ever, whatever happens
  ppfr distill --endpoint https://fr.example.org --target theirs --budget 4000 \\
      --faces utk_aligned --fr dlib=dlib.ts.pt --fr mobileface=mobileface.ts.pt --out theirs/
  # it gives scores of pairs only
  ppfr distill --endpoint https://fr.example.org --target theirs --access score --budget 20000 …
  # a recogniser of your own made to stand noise, for ppfr certify: a denoiser in front of it, a
  # linear one or a learned one
  ppfr distill --teacher sface=sface.ts.pt --faces utk_aligned --noise 0.5 --out robust/
  ppfr distill --teacher sface=sface.ts.pt --faces utk_aligned --student denoiser --noise 0.5 \\
      --minutes 30 --out robust/
"""

_FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(cls=Command, epilog=EXAMPLES)
@click.option(
    "--endpoint",
    metavar="URL|MODULE:CLASS",
    help="What is asked: schemas/fr-endpoint.v1.openapi.json at a URL, an access of your own, or "
    "its entry point.",
)
@click.option("--teacher", metavar="NAME=PATH", help="Instead: a model that is here, no query.")
@click.option("--target", help="Name of the recogniser that is asked, for the card.")
@click.option("--budget", type=click.IntRange(1), help="Queries, ever; retries count.")
@click.option(
    "--access",
    type=click.Choice(["template", "score"]),
    default="template",
    help="What it answers: a picture's template, or the score of two pictures.",
)
@click.option("--faces", multiple=True, required=True, help="Aligned faces, Parquet. Repeatable.")
@click.option(
    "--fr",
    "public",
    multiple=True,
    metavar="NAME=PATH",
    help="FR model of yours (TorchScript) that the surrogate is made on. Repeatable.",
)
@click.option(
    "--student",
    metavar="small|medium|denoiser|PATH",
    help="A network of its own instead of a head on the --fr models: of two sizes, or a "
    "TorchScript network to go on with; denoiser: a small one that takes the noise away in front "
    "of --teacher.",
)
@click.option(
    "--noise",
    type=click.FloatRange(0, 2),
    default=0.0,
    help="Train the student under Gaussian noise of up to this (pixels of 0..1); with --teacher "
    "and no --student: put a linear denoiser for it in front of the teacher.",
)
@click.option("--minutes", type=float, default=10.0, help="For the student.")
@click.option("--workers", type=click.IntRange(1, 64), default=1)
@click.option("--per-second", type=click.FloatRange(0, min_open=True), help="Queries, at most.")
@click.option("--timeout", type=click.FloatRange(0.1), default=10.0)
@click.option("--attempts", type=click.IntRange(1, 20), default=5)
@TOKEN_FILE
@click.option("--threads", type=click.IntRange(1), default=1)
@click.option("--out", required=True, type=_FOLDER, help="Folder of surrogate, card and account.")
def main(**options: Any) -> int:
    """Make a surrogate of a recogniser that can only be asked: it says, without asking further,
    whether that recogniser will work on what you publish.

    OUT/account.jsonl counts every query before it is sent; the same command goes on with what was
    answered and never exceeds the budget. The surrogate is void as a black box, and says so.
    """
    import numpy as np
    import torch

    from ppfr_ops.lab.distill.distilling import Wanted, distil, of_teacher
    from ppfr_ops.lab.evaluate.data import read_faces
    from ppfr_ops.recognizers import RecognizerSpec

    torch.set_num_threads(options["threads"])
    _check(options)
    faces = np.concatenate([read_faces(path, "faces").images for path in options["faces"]])
    out: Path = options["out"]
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    wanted = Wanted(
        options["target"] or (options["teacher"] or "").partition("=")[0],
        options["access"],
        options["student"],
        options["noise"],
        60 * options["minutes"],
        options["workers"],
    )

    if options["teacher"]:
        card = of_teacher(RecognizerSpec.parse(options["teacher"]), faces, wanted, out, log)
    else:
        public = [RecognizerSpec.parse(text) for text in options["public"]]
        card = distil(_asker(options, out), faces, public, wanted, out, log)
    echo(f"surrogate of {card.target} ({card.kind}): {card.queries:,} queries, in {out.name}/")
    if card.void_as_black_box:
        echo("void as a black box: evaluate takes it as --fr only")
    worse = card.fit.spearman is not None and card.fit.spearman <= (card.fit.baseline or 0)
    if worse:
        echo("Warning: no better than without a query: this surrogate is worthless", err=True)
    return 0


def _check(options: dict[str, Any]) -> None:
    if bool(options["endpoint"]) == bool(options["teacher"]):
        raise UserError("give --endpoint, or --teacher")
    if options["teacher"] and not options["student"] and not options["noise"]:
        raise UserError("--teacher needs --student, or --noise for a denoiser in front of it")
    if options["endpoint"]:
        for name in ("target", "budget", "public"):
            if not options[name]:
                raise UserError(f"--endpoint needs --{'fr' if name == 'public' else name}")
    if options["noise"] and not options["student"] and options["endpoint"]:
        raise UserError("--noise needs --student")
    if options["student"] == "denoiser" and not (options["teacher"] and options["noise"]):
        raise UserError("--student denoiser needs --teacher and --noise")


def _asker(options: dict[str, Any], out: Path) -> Any:
    from ppfr_ops.lab.queries.access import Access, load
    from ppfr_ops.lab.queries.account import QueryAccount
    from ppfr_ops.lab.queries.answers import Answers
    from ppfr_ops.lab.queries.asking import QueryClient
    from ppfr_ops.lab.queries.http import HttpAccess

    endpoint: str = options["endpoint"]
    token = read_token(options["token_file"])
    access: Access
    if endpoint.startswith(("http://", "https://")):
        access = HttpAccess(endpoint, options["timeout"], token)
    else:
        access = load(endpoint)
    account = QueryAccount(out / "account.jsonl", endpoint, options["budget"])
    answers = Answers(out / "answers.sqlite")
    return QueryClient(access, account, answers, options["attempts"], options["per_second"])
