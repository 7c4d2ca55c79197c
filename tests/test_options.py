"""An option is declared once: help, digest, manifest and docs come from the field."""

from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import create_model

from ppfr_ops.cli import reference
from ppfr_ops.cli.options import collect, options_of, sanitize_options, validated
from ppfr_ops.errors import UserError
from ppfr_ops.options import declared, extra, option
from ppfr_ops.sample import write_sample
from ppfr_ops.sanitize.finish import finish
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.photographs.options import PhotographOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.store.ledger import Ledger

DOCS = Path(__file__).parent.parent / "docs"

More = create_model(
    "More",
    __base__=SanitizeOptions,
    sparkle=(int, option(3, "How much the pictures sparkle.", shapes=True, ge=1, le=9)),
    hum=(bool, option(False, "Hum while working.")),
    lair=(str | None, option(None, "Where the key lies.", shapes=True, private=True)),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    write_sample(folder, count=4, identities=2, files=1)
    return folder


def settings(source: Path, model: type[SanitizeOptions] = More, **values: Any) -> dict[str, str]:
    common = {"input": str(source), "output": str(source.parent / "out"), "method": "blur"}
    return dict(prepare(model(**{**common, **values})).settings)


def test_a_new_option_is_in_help_digest_manifest_and_docs(source: Path, tmp_path: Path) -> None:
    @click.command()
    @options_of(More)
    def command(**values: Any) -> None:
        mine = {name: value for name, value in values.items() if name in More.model_fields}
        click.echo(repr(validated(More, mine).sparkle))

    said = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "--sparkle INTEGER RANGE" in said and "How much the pictures sparkle." in said
    assert "default: 3; 1<=x<=9" in said and "--hum" in said and "--lair" in said
    given = ["--input", "a", "--output", "b", "--sparkle", "5"]
    assert CliRunner().invoke(command, given).output == "5\n"
    assert CliRunner().invoke(command, [*given, "--sparkle", "10"]).exit_code == 2

    one, other = settings(source), settings(source, sparkle=4)
    assert [name for name in one if one[name] != other[name]] == ["--sparkle"]
    assert settings(source, hum=True) == one
    assert settings(source, lair="cave") != one

    common = {"input": str(source), "output": str(tmp_path / "out"), "method": "blur"}
    job = prepare(More(**common, sparkle=5, hum=True, lair="cave"))
    Ledger(str(tmp_path / "out")).open(job.settings)
    manifest, _ = finish(job, "test")
    assert manifest.options["sparkle"] == 5
    assert not {"hum", "lair", "input", "fr", "policy", "seed"} & manifest.options.keys()
    assert "cave" not in manifest.model_dump_json() + repr(job.options)

    page = reference.page(More)
    row = "| `--sparkle` | `3` | from 1 to 9 | How much the pictures sparkle. *Shapes the output;"
    assert row in page and "| `--hum` | off |  | Hum while working. |" in page


def test_the_page_in_the_docs_has_not_drifted() -> None:
    assert (DOCS / "reference" / "options.md").read_text() == reference.page(), "make reference"


def test_a_tighter_limit_is_another_run(source: Path) -> None:
    shown = {"method": "stochastic-local", "identity": "original"}
    loose = settings(source, SanitizeOptions, **shown)
    tight = settings(source, SanitizeOptions, **shown, max_disclosure=0.4)
    assert [name for name in loose if loose[name] != tight[name]] == ["--max-disclosure"]
    # The method's own limit, spelt out, is no other run.
    assert loose == settings(source, SanitizeOptions, **shown, max_disclosure=0.6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("output_format", "png"),
        ("quality", 80),
        ("metrics", "basic"),
        ("method_options", {"sigma": "3"}),
        ("limit", 3),
        ("seed", 5),
        ("photographs", {"smallest_face": 20}),
    ],
)
def test_whatever_shapes_the_output_is_in_the_digest(source: Path, name: str, value: Any) -> None:
    assert settings(source, SanitizeOptions, **{name: value}) != settings(source, SanitizeOptions)


def test_every_option_is_described_and_stands_alone() -> None:
    for model in (SanitizeOptions, PhotographOptions):
        for name, field in declared(model).items():
            text = field.description or ""
            assert text[:1].isupper() or text.startswith("Ed25519"), name
            assert text.endswith((".", ")")), name
            assert text.split()[0] not in ("And", "Of", "Their", "That"), name
        private = {name for name, field in declared(model).items() if not field.repr}
        assert not private & {n for n, f in declared(model).items() if extra(f)["manifest"]}


def test_errors_name_the_option() -> None:
    @click.command()
    @sanitize_options
    def command(**values: Any) -> None:
        del values["dry_run"], values["as_json"]
        try:
            collect(values)
        except UserError as error:
            click.echo(f"refused: {error}")

    base = ["--input", "a", "--output", "b"]
    said = CliRunner().invoke(command, [*base, "--method-option", "sigma"]).output
    assert said == "refused: --method-option: expected KEY=VALUE\n"
    said = CliRunner().invoke(command, [*base, "--background", "blur"]).output
    assert said == "refused: --background goes with --faces detect\n"


def test_choices_come_from_the_type() -> None:
    model = create_model("M", __base__=SanitizeOptions, x=(Literal["a", "b"], option("a", "X.")))
    command = options_of(model)(click.command()(lambda **values: None))
    (found,) = (item for item in command.params if item.name == "x")
    assert isinstance(found.type, click.Choice) and list(found.type.choices) == ["a", "b"]


def test_the_help_shows_every_option_once_and_the_ten_of_most_use_first() -> None:
    from ppfr_ops.cli.options import ADVANCED, SECTIONS
    from ppfr_ops.cli.sanitize import main

    named = [name for names in SECTIONS.values() for name in names]
    assert len(named) == len(set(named))
    known = {item.name for item in main.params}
    assert set(named) <= known
    shown = CliRunner().invoke(main, ["--help"]).output
    titles = [*SECTIONS, ADVANCED]
    places = [shown.index(f"\n{title}:\n") for title in titles]
    assert places == sorted(places) and len(SECTIONS["Most used"]) == 10
    for item in main.params:
        assert shown.count(f"\n  {item.opts[0]} ") <= 1
