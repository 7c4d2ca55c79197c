"""What travels with the data: a Hugging Face dataset card, Croissant JSON-LD and OpenLineage
events. They name no person, source or path of the owner's, and hold no picture."""

import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import yaml
from markupsafe import Markup

from ppfr_ops.contracts.evaluation import Evaluation
from ppfr_ops.contracts.manifest import LEAST_RECORDS, Check, Manifest, ReleaseManifest
from ppfr_ops.release.documents.modes import mode_of
from ppfr_ops.release.figures import Release

PRODUCER = "https://pypi.org/project/ppfr-sanitizer"
_CONTEXT = Path(__file__).parent / "croissant.yaml"
SAFE = "protected (pseudonymised) faces"

_CROISSANT_TYPES = {
    pa.types.is_boolean: "sc:Boolean",
    pa.types.is_integer: "sc:Integer",
    pa.types.is_floating: "sc:Float",
    pa.types.is_date: "sc:Date",
}


@dataclass(frozen=True)
class Publication:
    """What only the owner can say about a release."""

    name: str
    license: str | None = None
    """SPDX identifier or URL; None: not stated."""
    creator: str | None = None
    url: str | None = None
    version: str = "1.0.0"


def rendered(template: str, **values: Any) -> str:
    """A document by a template of this package; whatever it is given is escaped in HTML. Filters:
    ``breakable`` lets a long name break after its underscores, ``said`` says a value in words."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("ppfr_ops.release.documents"),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["breakable"] = lambda text: Markup("_<wbr>").join(str(text).split("_"))
    made.filters["said"] = _said
    made.filters["markdown"] = markdown
    return made.get_template(template).render(**values)


_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")


def markdown(text: Any) -> str:
    """A text of anybody's, such as a column's name, as Markdown shows it and does nothing else."""
    if _PLAIN.fullmatch(str(text)):
        return f"`{text}`"
    flat = " ".join(str(text).split())
    return "".join(c if c.isalnum() or c == " " else f"&#{ord(c)};" for c in flat)


def as_json(document: Any) -> str:
    """JSON that may lie in a page: no character in it opens or closes a tag."""
    text = json.dumps(document, indent=1)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026") + "\n"


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def columns(release: Release) -> list[tuple[str, str, str]]:
    """Name, type and meaning of every published column."""
    kinds = {"image": "image"}
    return [(f.name, kinds.get(f.name, str(f.type)), _meaning(f)) for f in release.columns]


def _meaning(field: pa.Field) -> str:
    return (field.metadata or {}).get(b"description", b"").decode()


def linkage_in_words(evaluation: Evaluation | None, made: Manifest | ReleaseManifest) -> str:
    """How well published pictures can be linked to other photos of the same people."""
    plain = mode_of(made).linked
    if evaluation is None or not evaluation.linkage:
        return f"{plain} For this method no linkage was measured."
    rates = {
        name: max(item.rank1, item.student.rank1 if item.student else 0.0)
        for name, item in evaluation.linkage.items()
    }
    model, rate = max(rates.items(), key=lambda item: item[1])
    found = evaluation.linkage[model]
    taught = "" if rate == found.rank1 else ", once the model is taught by pairs that are known"
    return (
        f"{plain} Measured for this method: with {model}, the right person among "
        f"{found.people:,} comes first in {rate:.1%} of searches (unprotected "
        f"{found.rank1_original:.1%}, by chance {found.chance:.2%}){taught}."
    )


def dataset_card(
    release: Release,
    publication: Publication,
    evaluation: Evaluation | None = None,
    checks: list[Check] | None = None,
) -> str:
    """Hugging Face ``README.md`` with YAML front matter."""
    told = release.told
    front: dict[str, Any] = {
        "pretty_name": publication.name,
        "license": publication.license or "unknown",
        "size_categories": [_size(told.records)],
        "tags": ["face-recognition", "privacy", "pseudonymised", told.method.name],
        "configs": [{"config_name": "default", "data_files": "data/*.parquet"}],
    }
    return rendered(
        "README.md.j2",
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(),
        publication=publication,
        told=told,
        columns=columns(release),
        least=LEAST_RECORDS,
        linkage=linkage_in_words(evaluation, told),
        mode=mode_of(told),
        evaluation=evaluation,
        checks=checks or [],
    )


def _size(records: int) -> str:
    edges = {
        1000: "n<1K",
        10_000: "1K<n<10K",
        100_000: "10K<n<100K",
        1_000_000: "100K<n<1M",
        10_000_000: "1M<n<10M",
        100_000_000: "10M<n<100M",
    }
    return next((name for edge, name in edges.items() if records < edge), "100M<n<1B")


# -- Croissant ------------------------------------------------------------------------------


def croissant(
    release: Release, publication: Publication, evaluation: Evaluation | None = None
) -> dict[str, Any]:
    """Croissant 1.1 JSON-LD, with the fields of its RAI extension and W3C PROV.

    Every data shard is a FileObject with its sha256; the FileSet of them is what the RecordSet
    reads.
    """
    manifest = release.told
    files = [
        {
            "@type": "cr:FileObject",
            "@id": shard.path,
            "name": shard.path,
            "contentUrl": shard.path,
            "contentSize": f"{shard.bytes} B",
            "encodingFormat": "application/x-parquet",
            "sha256": shard.sha256,
        }
        for shard in release.shards
    ]
    fileset = {
        "@type": "cr:FileSet",
        "@id": "data",
        "name": "data",
        "description": "all data shards",
        "containedIn": [{"@id": shard.path} for shard in release.shards],
        "encodingFormat": "application/x-parquet",
        "includes": "data/*.parquet",
    }
    version = manifest.versions.get("ppfr-sanitizer", "")
    document: dict[str, Any] = {
        "@context": yaml.safe_load(_CONTEXT.read_text("utf-8")),
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.1",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": publication.name,
        "description": (
            f"{manifest.records} {SAFE}, made with the method {manifest.method.name}. "
            "Face recognition works on them; they still are personal data."
        ),
        "version": publication.version,
        "datePublished": manifest.finished_on.isoformat(),
        "license": publication.license or "unknown",
        "citeAs": ", ".join(
            filter(None, (publication.creator, publication.name, f"version {publication.version}"))
        ),
        "url": publication.url or f"urn:ppfr:{manifest.release}",
        "isLiveDataset": False,
        "rai:dataCollection": "Photos of faces; what is published was made from them by the method "
        "named above. No original is part of the release.",
        "rai:dataPreprocessingProtocol": [
            f"method {manifest.method.name}, digest {manifest.method.digest}",
            f"stored as {manifest.options.get('output_format')}, "
            f"quality {manifest.options.get('quality')}, no metadata",
        ],
        "rai:personalSensitiveInformation": [linkage_in_words(evaluation, manifest)],
        "rai:dataUseCases": "Training and testing of face recognition by those licensed to.",
        "rai:dataLimitations": [
            "not to be looked at: pictures are distorted on purpose",
            "figures hold for the models and attackers they were measured with, and no others",
        ],
        "prov:wasGeneratedBy": {
            "@type": "prov:Activity",
            "prov:label": f"ppfr-sanitizer {version}",
            "prov:endedAtTime": manifest.finished_on.isoformat(),
        },
        "prov:wasDerivedFrom": {"prov:label": "faces that are not published"},
        "distribution": [*files, fileset],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "records",
                "name": "records",
                "key": {"@id": "records/record_id"},
                "field": [_field(field) for field in release.columns],
            }
        ],
    }
    if publication.creator:
        document["creator"] = {"@type": "sc:Organization", "name": publication.creator}
    return document


def _field(field: pa.Field) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": "data"}, "extract": {"column": field.name}}
    kind = next((name for test, name in _CROISSANT_TYPES.items() if test(field.type)), "sc:Text")
    if field.name == "image":
        kind = "sc:ImageObject"
        source["transform"] = {"jsonPath": "bytes"}
    return {
        "@type": "cr:Field",
        "@id": f"records/{field.name}",
        "name": field.name,
        "description": _meaning(field),
        "dataType": kind,
        "source": source,
    }


# -- OpenLineage ----------------------------------------------------------------------------

_EVENT_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets"


def lineage_events(
    release: Release, publication: Publication, passed: bool
) -> list[dict[str, Any]]:
    """Two OpenLineage run events, START and then COMPLETE or FAIL, of the run that finished the
    output. Datasets go by digest: no path leaves.

    Args:
        passed: whether the release holds and meets its policy.
    """
    manifest = release.manifest
    finished = str(release.last.get("finished") or manifest.finished_at)
    started = str(release.last.get("started") or finished)
    # The same output always gives the same run, so that sending the events again adds nothing.
    name = f"{manifest.settings_digest}/{manifest.plan_digest}/{started}"
    run = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PRODUCER}/{name}"))
    fields = [{"name": name, "type": kind} for name, kind, _ in columns(release)]
    sizes = [file.bytes for file in release.shards]
    output = {
        "namespace": "ppfr",
        "name": publication.name,
        "facets": {"schema": _facet("1-2-0/SchemaDatasetFacet", fields=fields)},
        "outputFacets": {
            "outputStatistics": _facet(
                "1-0-2/OutputStatisticsOutputDatasetFacet",
                rowCount=manifest.counts.records,
                size=sum(sizes),
                fileCount=len(sizes),
            )
        },
    }
    source = {"namespace": "ppfr", "name": f"sha256:{manifest.plan_digest}"}
    job = {
        "namespace": "ppfr",
        "name": "sanitize",
        "facets": {
            "jobType": _facet(
                "2-0-4/JobTypeJobFacet", processingType="BATCH", integration="PPFR", jobType="JOB"
            )
        },
    }
    engine, _, version = manifest.engine.partition(" ")
    facets = {
        "processing_engine": _facet(
            "1-1-1/ProcessingEngineRunFacet",
            name=engine,
            version=version or "unknown",
            openlineageAdapterVersion=manifest.versions.get("ppfr-sanitizer", "unknown"),
        )
    }

    def event(kind: str, time: str, outputs: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "eventType": kind,
            "eventTime": time,
            "producer": PRODUCER,
            "schemaURL": _EVENT_SCHEMA,
            "run": {"runId": run, "facets": facets},
            "job": job,
            "inputs": [source],
            "outputs": outputs,
        }

    return [
        event("START", started, []),
        event("COMPLETE" if passed else "FAIL", finished, [output]),
    ]


def _facet(schema: str, **values: Any) -> dict[str, Any]:
    name = schema.rpartition("/")[2]
    return {"_producer": PRODUCER, "_schemaURL": f"{_FACETS}/{schema}.json#/$defs/{name}", **values}
