"""What the owner and the receivers are handed: right, readable, and nobody's face or name in it."""

import base64
import copy
import html
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, get_type_hints

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from pydantic import TypeAdapter

from ppfr_ops.cli import program
from ppfr_ops.contracts.policy import parse
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.release.documents import modes, required
from ppfr_ops.release.documents.cards import (
    Publication,
    croissant,
    dataset_card,
    lineage_events,
)
from ppfr_ops.release.documents.report import render
from ppfr_ops.release.figures import assess, open_release
from ppfr_ops.release.signing import sign
from ppfr_ops.sample import faces
from ppfr_ops.sanitize.finish import finish
from ppfr_ops.sanitize.options import SanitizeOptions
from ppfr_ops.sanitize.prepare import prepare
from ppfr_ops.sanitize.worker import Worker
from ppfr_ops.store.ledger import Ledger

LOOSE = "record: {disclosure: '<= 1'}\ndataset: {disclosure_p99: '<= 1', records: '>= 1'}\n"
PERSON = "Jane_Doe"


def make(folder: Path, seed: int | None = None) -> Path:
    """An output of two units with a dead letter, sanitized without an engine."""
    (folder / "in" / PERSON).mkdir(parents=True)
    cells = [
        {"bytes": Encoding().encode(face), "path": f"{PERSON}_{index}.jpg"}
        for index, face in enumerate(faces(11, seed=4))
    ]
    cells.append({"bytes": b"no picture", "path": f"{PERSON}.jpg"})
    table = pa.table({"image": cells, "identity": [PERSON] * 12, "age": list(range(12))})
    pq.write_table(table, folder / "in" / PERSON / "a.parquet")
    (folder / "key").write_text("0123456789abcdef" * 4)
    options = SanitizeOptions(
        input=str(folder / "in"),
        output=str(folder / "out"),
        method="signed-field",
        unit_rows=6,
        keep_columns=("age",),
        identity_column="identity",
        identity_key_file=str(folder / "key"),
        seed=seed,
    )
    job = prepare(options)
    Ledger(options.output).open(job.settings)
    worker = Worker(job)
    for ordinal in range(len(job.plan.units)):
        worker.process(ordinal)
    finish(job, "test 1")
    return folder / "out"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    make(folder)
    (folder / "loose.yaml").write_text(LOOSE)
    return folder


@pytest.fixture
def output(folder: Path, tmp_path: Path) -> Path:
    shutil.copytree(folder / "out", tmp_path / "out")
    shutil.copy(folder / "loose.yaml", tmp_path)
    return tmp_path / "out"


@dataclass(frozen=True)
class Done:
    exit_code: int
    output: str


def ppfr(*arguments: str) -> Done:
    """As ``ppfr_ops.cli.run`` does, where a command's value is the exit code."""
    done = CliRunner().invoke(program, arguments, standalone_mode=False)
    if isinstance(done.exception, click.ClickException):
        return Done(done.exception.exit_code, done.output + done.exception.format_message())
    if done.exception is not None:
        raise done.exception
    return Done(done.return_value, done.output)


def report(output: Path, *options: str) -> Done:
    return ppfr("report", str(output), "--policy", str(output.parent / "loose.yaml"), *options)


class Page(html.parser.HTMLParser):
    """Checks nesting, and collects what a page refers to."""

    VOID = frozenset({"meta", "img", "br", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_one_page_that_needs_nothing_and_says_it_all(output: Path) -> None:
    done = report(output)
    assert done.exit_code == 0, done.output
    text = (output / "evidence/report.html").read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    tags = [tag for tag, _ in page.seen]
    assert not {"script", "link", "iframe", "object"} & set(tags)
    for tag, attributes in page.seen:
        for key in ("src", "href", "xlink:href"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:image/")), (tag, value)
        if tag == "img":
            assert attributes.get("alt")
        if tag == "th":
            assert attributes.get("scope")
    assert not re.search(r"url\((?!#)", text) and "@import" not in text
    # A plot for each metric: axes labelled, bars in it, described, with a table.
    assert tags.count("svg") == tags.count("details") == 6
    labels = [
        attributes["aria-label"] for tag, attributes in page.seen if "aria-label" in attributes
    ]
    assert sum("Histogram of" in (label or "") for label in labels) == 6
    assert text.count(">records</text>") == 6 and ">disclosure</text>" in text
    # Verdict first, then linkage, in plain words.
    assert text.index("May be released") < text.index("Still personal data") < text.index("What is")
    assert "not_an_image" in text and "none: anyone who can write" in text
    # Units of six rows, one of which lost one.
    assert "2 of 2 shards have a number of records that no other shard has" in text
    for word in ("anonymous", "anonymised", "gdpr compliant", "certified"):
        assert word not in text.lower()


def test_pictures_are_of_the_sample_and_no_name_leaves(output: Path, tmp_path: Path) -> None:
    lineage = tmp_path / "lineage.ndjson"
    done = report(output, "--lineage", str(lineage), "--json")
    written = [
        output / "evidence/report.html",
        output / "release/README.md",
        output / "release/croissant.json",
        lineage,
    ]
    said = done.output + "".join(path.read_text() for path in written)
    assert PERSON not in said and PERSON.lower() not in said.lower()
    assert str(tmp_path) not in said
    assert not re.search(r"(?<![0-9a-f])a\.parquet", said)  # ids may end so
    shown = re.findall(r"data:image/\w+;base64,([\w+/=]+)", said)
    assert len(shown) == 8
    drawn = [Encoding().encode(face) for face in faces(4, identities=4)]
    assert [base64.b64decode(data) for data in shown[::2]] == drawn
    published = pq.read_table(output / "release/data")["image"].to_pylist()
    assert not {base64.b64decode(data) for data in shown} & {cell["bytes"] for cell in published}


def test_the_documents_do_not_disturb_verify(output: Path) -> None:
    assert report(output).exit_code == 0
    assert ppfr("verify", str(output)).exit_code == 0


MODES = [
    (modes.CHANGED, {"draws_faces": False}, {}),
    (modes.SAME, {"draws_faces": True, "options": {"identity": "original"}}, {}),
    (modes.STAND_INS, {"draws_faces": True, "options": {"identity": "virtual"}}, {}),
    (modes.NOBODY, {"draws_faces": True}, {"reads_faces": False}),
]


@pytest.mark.parametrize(("mode", "method", "options"), MODES)
def test_the_words_are_those_of_the_mode(folder: Path, mode, method, options) -> None:
    """No report of drawn people says that whoever has a photo of somebody finds them."""
    release = open_release(str(folder / "out"))
    changed = release.manifest.model_copy(
        update={
            "method": release.manifest.method.model_copy(update=method),
            "options": release.manifest.options | options,
        }
    )
    told = release.told.model_copy(
        update={"method": changed.method, "options": release.told.options | options}
    )
    release = replace(release, manifest=changed, told=told)
    policy = parse(LOOSE)
    page = render(release, Publication("x"), policy, assess(policy, release), [])
    shown = " ".join(html.unescape(page).split())
    assert mode.recognition in shown and mode.linked in shown
    card = " ".join(dataset_card(release, Publication("x")).split())
    assert mode.words in card and mode.linked in card
    of_themselves = ("re-identify them", "finding people in it", "Still personal data.")
    assert all(
        (text in shown) == (mode in (modes.SAME, modes.CHANGED)) for text in of_themselves[:2]
    )
    assert (of_themselves[2] in shown) == (mode is not modes.NOBODY)
    for other in (other for other, *_ in MODES if other.words != mode.words):
        assert other.words not in card


def test_the_verdict_counts_the_rows_that_the_report_lists(folder: Path) -> None:
    release = open_release(str(folder / "out"))
    policy = parse(LOOSE)
    page = render(release, Publication("x"), policy, assess(policy, release), [])
    listed = page.partition("What is required, what was found")[2].partition("</table>")[0]
    rows = listed.count('<th scope="row">')
    assert f"ll {rows} requirements are met, 3 of them the policy&#39;s" in page
    assert rows == len(required.requirements([], assess(policy, release), release)) == 7


@pytest.mark.parametrize(
    ("change", "name", "why"),
    [
        ({"options": {"draws": "seeded"}}, "source of the draws", "came from a seed"),
        ({"dead": {"unreadable_unit": 1}}, "input that cannot be counted", "input was lost"),
        ({"records": 0}, "records", "nothing was published"),
    ],
)
def test_what_keeps_a_release_back_is_a_row_that_does_not_hold(
    folder: Path, change, name: str, why: str
) -> None:
    release = open_release(str(folder / "out"))
    counts = release.manifest.counts.model_copy(
        update={
            "records": change.get("records", 11),
            "dead_letters_by_code": change.get("dead", {}),
        }
    )
    update = {"counts": counts, "options": release.manifest.options | change.get("options", {})}
    release = replace(release, manifest=release.manifest.model_copy(update=update))
    rows = required.requirements([], [], release)
    assert [row.name for row in rows if not row.holds] == [name]
    passed, said = required.verdict(rows, [])
    assert not passed and why in said


def test_what_does_not_hold_is_not_released(output: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text("record: {disclosure: '<= 0.01'}\ndataset: {rec_ssim: '<= 0.55'}\n")
    done = report(output, "--policy", str(strict))
    assert done.exit_code == 3 and "rec_ssim: not measured" in done.output
    assert "2 of 2 requirements" in done.output
    shard = next((output / "release/data").iterdir())
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    done = report(output)
    assert done.exit_code == 3 and f"data/{shard.name}: its sha256" in done.output
    assert "Must not be released" in (output / "evidence/report.html").read_text()


def test_a_seeded_run_is_not_released(tmp_path: Path) -> None:
    output = make(tmp_path, seed=3)
    (tmp_path / "loose.yaml").write_text(LOOSE)
    done = report(output)
    assert done.exit_code == 3 and "the draws came from a seed" in done.output


def test_the_signature_is_told(output: Path, tmp_path: Path) -> None:
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    sign(str(output), key)
    pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    for name, owner in (("key", key), ("other", other)):
        (tmp_path / name).write_bytes(owner.public_key().public_bytes(pem, form))
    assert report(output, "--public-key", str(tmp_path / "key")).exit_code == 0
    assert "valid, by the key given" in (output / "evidence/report.html").read_text()
    assert report(output, "--public-key", str(tmp_path / "other")).exit_code == 3
    assert "not valid for the key given" in (output / "evidence/report.html").read_text()


def test_wrong_input_is_one_line(tmp_path: Path, output: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    for arguments in (
        [str(tmp_path / "nothing")],
        [str(output), "--evaluation", str(bad)],
        [str(output), "--policy", str(tmp_path / "absent.yaml")],
    ):
        done = ppfr("report", *arguments)
        assert done.exit_code == 2 and len(done.output.strip().splitlines()) == 1


def test_the_card_has_front_matter_and_every_column(output: Path) -> None:
    report(output, "--name", "faces-x", "--license", "cc-by-nc-4.0", "--creator", "An Office")
    import yaml

    _, front, body = (output / "release/README.md").read_text().split("---\n", 2)
    values = yaml.safe_load(front)
    assert values["license"] == "cc-by-nc-4.0" and values["size_categories"] == ["n<1K"]
    assert values["configs"][0]["data_files"] == "data/*.parquet"
    for column in ("record_id", "image", "identity", "age"):
        assert f"| `{column}` |" in body
    assert "This is personal data" in body and "An Office" in body


def test_croissant_names_every_shard_with_its_digest(output: Path) -> None:
    document = croissant(open_release(str(output)), Publication("faces-x", "cc-by-nc-4.0"))
    shards = open_release(str(output)).shards
    assert len(shards) == len(list((output / "release/data").iterdir()))
    files = {
        item["@id"]: item for item in document["distribution"] if "FileObject" in item["@type"]
    }
    assert {path: item["sha256"] for path, item in files.items()} == {
        file.path: file.sha256 for file in shards
    }
    assert "http://mlcommons.org/croissant/1.1" in document["conformsTo"]
    kinds = {field["name"]: field["dataType"] for field in document["recordSet"][0]["field"]}
    assert kinds["image"] == "sc:ImageObject" and kinds["age"] == "sc:Integer"


def test_mlcroissant_and_datasets_accept_the_output(output: Path, tmp_path: Path) -> None:
    report(output, "--name", "faces-x", "--license", "cc-by-nc-4.0")
    code = """
import json, shutil, sys
import datasets, mlcroissant
shutil.copytree(sys.argv[1], f"{sys.argv[2]}/bare", ignore=lambda *_: ["README.md"])
bare = datasets.load_dataset(f"{sys.argv[2]}/bare", split="train", cache_dir=f"{sys.argv[2]}/1")
described = mlcroissant.Dataset(jsonld=f"{sys.argv[1]}/croissant.json")
records = list(described.records("records"))
opened = datasets.load_dataset(
    "parquet", data_files=f"{sys.argv[1]}/data/*.parquet", split="train", cache_dir=sys.argv[2]
)
print(json.dumps({
    "issues": sorted(described.metadata.ctx.issues.errors),
    "croissant": len(records),
    "keys": sorted(records[0]),
    "size": records[0]["records/image"].size,
    "rows": len(opened),
    "bare": len(bare),
    "decoded": opened[0]["image"].size,
    "columns": opened.column_names,
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(output / "release"), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    values = json.loads(done.stdout.splitlines()[-1])
    assert values["issues"] == [] and values["croissant"] == values["rows"] == 11
    assert values["bare"] == 11  # the folder as it is, with no card
    assert values["size"] == values["decoded"] == [112, 112]
    assert values["columns"] == ["record_id", "image", "identity", "age"]


def as_official(event: dict) -> object:
    """The event in the classes that OpenLineage generates from its schema: they know every field,
    refuse what is missing or not theirs, and check times, UUIDs and URLs; types are checked here.
    """
    from openlineage.client import event_v2, facet_v2

    def put(cls: type, values: dict, **built: object) -> object:
        hints = get_type_hints(cls)
        for name, value in values.items():
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        return cls(**values, **built)

    def facets(found: dict) -> dict:
        return {name: facet(values) for name, values in found.items()}

    def facet(values: dict) -> object:
        values = dict(values)
        producer, url = values.pop("_producer"), values.pop("_schemaURL")
        wanted = url.rpartition("/")[2]
        cls = next(
            getattr(module, wanted) for module in vars(facet_v2).values() if hasattr(module, wanted)
        )
        nested = {}
        if "fields" in values:
            kind = facet_v2.schema_dataset.SchemaDatasetFacetFields
            nested["fields"] = [put(kind, field) for field in values.pop("fields")]
        made = put(cls, values, producer=producer, **nested)
        assert made._schemaURL == url
        return made

    def dataset(cls: type, values: dict, own: str) -> object:
        values = dict(values)
        found = {key: facets(values.pop(key, {})) for key in ("facets", own)}
        return put(cls, values, **found)

    rest = dict(event)
    run, job = dict(rest.pop("run")), dict(rest.pop("job"))
    url = rest.pop("schemaURL")
    kind = event_v2.RunState(rest.pop("eventType"))
    inputs = [dataset(event_v2.InputDataset, d, "inputFacets") for d in rest.pop("inputs")]
    outputs = [dataset(event_v2.OutputDataset, d, "outputFacets") for d in rest.pop("outputs")]
    run_facets, job_facets = facets(run.pop("facets")), facets(job.pop("facets"))
    made = put(
        event_v2.RunEvent,
        rest,
        eventType=kind,
        run=put(event_v2.Run, run, facets=run_facets),
        job=put(event_v2.Job, job, facets=job_facets),
        inputs=inputs,
        outputs=outputs,
    )
    assert made.schemaURL == url
    return made


def filled(value: object) -> object:
    """Without empty objects, which say nothing."""
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items() if item not in ({}, [], None)}
    return [filled(item) for item in value] if isinstance(value, list) else value


def check_event(event: dict) -> None:
    """It is what OpenLineage's own client would have sent, to the last field."""
    from openlineage.client.serde import Serde

    assert filled(Serde.to_dict(as_official(event))) == filled(event)
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None


def test_the_check_of_lineage_finds_what_the_schema_forbids(output: Path) -> None:
    """No test is worth more than what it refuses."""
    release = open_release(str(output))
    good = lineage_events(release, Publication("faces-x"), True)[1]
    check_event(good)
    for place, value in {
        ("eventType",): "DONE",
        ("eventTime",): "2026-11-23",
        ("run", "runId"): "none",
        ("job", "name"): None,
        ("extra",): 1,
        ("job", "facets", "jobType", "integration"): 3,
        ("outputs", 0, "outputFacets", "outputStatistics", "rowCount"): "11",
        ("outputs", 0, "facets", "schema", "_schemaURL"): "https://openlineage.io/other",
    }.items():
        bad = copy.deepcopy(good)
        holder: Any = bad
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        with pytest.raises((ValueError, TypeError, KeyError, AssertionError, StopIteration)):
            check_event(bad)


def test_lineage_goes_to_a_file_and_to_an_endpoint(output: Path, tmp_path: Path) -> None:
    got: list[dict] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201 if self.path == "/api/v1/lineage" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        base = f"http://127.0.0.1:{server.server_port}"
        assert report(output, "--lineage", f"{base}/api/v1/lineage").exit_code == 0
        refused = report(output, "--lineage", f"{base}/elsewhere")
    finally:
        server.shutdown()
        server.server_close()
    assert refused.exit_code == 1 and "HTTP 404" in refused.output
    file = tmp_path / "lineage.ndjson"
    assert report(output, "--lineage", str(file)).exit_code == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == got[:2]
    assert [event["eventType"] for event in lines] == ["START", "COMPLETE"]
    assert len({event["run"]["runId"] for event in lines}) == 1
    for event in lines:
        check_event(event)
    statistics = lines[1]["outputs"][0]["outputFacets"]["outputStatistics"]
    assert statistics["rowCount"] == 11 and statistics["fileCount"] == 2
    failed = tmp_path / "failed.ndjson"
    strict = tmp_path / "strict.yaml"
    strict.write_text("record: {disclosure: '<= 0.01'}\n")
    report(output, "--lineage", str(failed), "--policy", str(strict))
    assert json.loads(failed.read_text().splitlines()[1])["eventType"] == "FAIL"


def test_nothing_that_is_read_is_imported(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that names a module: it is not loaded, even with the release on the path."""
    (output / "release" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(str(output / "release"))
    path = output / "evidence/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["method"]["name"] = "evil:Method"
    path.write_text(json.dumps(manifest))
    done = report(output)
    assert done.exit_code == 3 and not (tmp_path / "ran").exists() and "evil" not in sys.modules
    assert "No pictures" in (output / "evidence/report.html").read_text()
    report(output, "--load-method", "other:Method")
    assert not (tmp_path / "ran").exists()
    report(output, "--load-method", "evil:Method")  # the owner's own word
    assert (tmp_path / "ran").exists()


def test_an_entry_that_names_other_files_is_not_followed(output: Path, tmp_path: Path) -> None:
    path = next((output / "evidence/ledger/units").iterdir())
    entry = json.loads(path.read_text())
    for place in ("/dev/zero", "../../etc/passwd"):
        entry["shards"]["metrics"]["path"] = place
        path.write_text(json.dumps(entry))
        done = report(output)
        assert done.exit_code == 3 and f"units/{path.name}: is damaged" in done.output


EVIL = "<script>alert(1)</script>`|[x](javascript:y)\n# =cmd"


def test_names_of_columns_do_nothing_in_card_croissant_or_report(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cells = [{"bytes": Encoding().encode(face), "path": "x"} for face in faces(3, seed=4)]
    table = pa.table({"image": cells, EVIL: ["<img src=x onerror=y>"] * 3})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    options = SanitizeOptions(
        input=str(tmp_path / "in"),
        output=str(tmp_path / "out"),
        method="blur",
        metrics="none",
        keep_columns=(EVIL,),
    )
    job = prepare(options)
    Ledger(options.output).open(job.settings)
    Worker(job).process(0)
    finish(job, "test 1")
    (tmp_path / "loose.yaml").write_text("record: {}\n")
    done = report(tmp_path / "out")
    assert "card and Croissant" not in done.output
    release, evidence = tmp_path / "out/release", tmp_path / "out/evidence"
    for path in (release / "README.md", release / "croissant.json", evidence / "report.html"):
        text = path.read_text()
        assert "<script" not in text and "<img src=x" not in text, path
        assert "](javascript" not in text or path.suffix != ".md"
    assert EVIL in [field["name"] for field in _fields(release)]
    assert "onerror" in (evidence / "report.html").read_text()  # shown, as text
    assert ppfr("verify", str(tmp_path / "out")).exit_code == 0


def _fields(release: Path) -> list[dict[str, str]]:
    document = json.loads((release / "croissant.json").read_text())
    return document["recordSet"][0]["field"]


def test_a_signed_release_keeps_its_signature(output: Path, tmp_path: Path) -> None:
    owner = Ed25519PrivateKey.generate()
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    private = owner.private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
    (tmp_path / "owner").write_bytes(private)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "pub").write_bytes(owner.public_key().public_bytes(pem, form))
    verify = ("verify", str(output), "--public-key", str(tmp_path / "pub"))
    sign(str(output), owner)
    assert "stay as they were signed" in report(output).output
    assert not (output / "release/README.md").exists() and ppfr(*verify).exit_code == 0
    assert report(output, "--signing-key", str(tmp_path / "owner")).exit_code == 0
    assert (output / "release/README.md").exists() and ppfr(*verify).exit_code == 0


def test_figures_on_the_page_are_those_in_the_metrics(output: Path) -> None:
    report(output)
    text = (output / "evidence/report.html").read_text()
    shown = pq.read_table(output / "evidence/metrics")["disclosure"].to_numpy()
    worst = pq.read_table(output / "evidence/metrics")["record_id"].to_pylist()[
        int(np.argmax(shown))
    ]
    place = text.index("Records to look at first")
    assert worst in text[place : place + 600] and f"{shown.max():.4f}" in text[place : place + 600]


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_on_a_phone_or_a_desk(output: Path, tmp_path: Path, width: int) -> None:
    """In a real browser: the margin at the right stays empty, and the page is not blank."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on the path")
    report(output, "--name", "a name as long as names of datasets get to be in the wild")
    shutil.copy(output / "evidence/report.html", tmp_path / "report.html")
    # A window is at least 500 wide; a frame need not be.
    (tmp_path / "frame.html").write_text(
        f'<body style="margin:0"><iframe src="report.html" scrolling="no" '
        f'style="width:{width}px;height:7000px;border:0"></iframe></body>'
    )
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={max(width, 500)},7000"]
    picture = tmp_path / "picture.png"
    command += [f"--screenshot={picture}", (tmp_path / "frame.html").as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    with Image.open(picture) as shot:
        seen = np.asarray(shot.convert("L"))[:, :width]
    written = np.flatnonzero((seen < 250).any(0))
    assert written[0] >= 10 and written[-1] < width - 10, (written[0], written[-1])
    assert (seen[:6000] < 250).any(1).mean() > 0.3
