"""deploy/: manifests against the fields that the APIs have; commands against our own options.

Kubernetes' own schemas, strict, of ``kubernetes-validate``. KubeRay's are no package anywhere: its
v1 (RayJob, RayCronJob, RayCluster) is a strict extract after the API reference, whose pod templates
are Kubernetes' again. An unknown or misspelt field fails.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ppfr_ops.cli.sanitize import main as sanitize
from ppfr_ops.sample import write_sample

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
Schema = dict[str, Any]


def obj(required: str = "", **properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def many(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
META = obj(name=NAME, namespace=NAME, labels=TEXTS, annotations=TEXTS)
TEMPLATE: Schema = {"type": "object"}
"""Kubernetes' own, checked by its schema."""
CLUSTER = obj(
    "headGroupSpec",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=obj(idleTimeoutSeconds=COUNT, resources=obj()),
    headGroupSpec=obj("template", rayStartParams=TEXTS, serviceType=TEXT, template=TEMPLATE),
    workerGroupSpecs=many(
        obj(
            "groupName template maxReplicas minReplicas",
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            idleTimeoutSeconds=COUNT,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        )
    ),
)
RAY_JOB = obj(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    activeDeadlineSeconds=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    runtimeEnvYAML=TEXT,
    rayClusterSpec=CLUSTER,
)
SCHEDULE: Schema = {"type": "string", "pattern": r"^(\S+ ){4}\S+$"}
SPECS: dict[tuple[str, str], Schema] = {
    ("ray.io/v1", "RayCluster"): CLUSTER,
    ("ray.io/v1", "RayJob"): RAY_JOB,
    ("ray.io/v1", "RayCronJob"): obj(
        "schedule jobTemplate", schedule=SCHEDULE, suspend=FLAG, jobTemplate=RAY_JOB
    ),
}


def check(manifest: Schema) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate")
    kind = manifest["apiVersion"], manifest["kind"]
    if kind not in SPECS:
        kubernetes.validate(manifest, "1.32", strict=True)
        return
    whole = obj("metadata spec", apiVersion=TEXT, kind=TEXT, metadata=META, spec=SPECS[kind])
    jsonschema.validate(manifest, whole)
    for template in templates(manifest["spec"]):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
        kubernetes.validate(pod, "1.32", strict=True)


def templates(part: Any) -> Iterator[Schema]:
    """The pod templates of a custom resource."""
    for name, each in part.items() if isinstance(part, dict) else enumerate(part):
        if name == "template":
            yield each
        elif isinstance(each, dict | list):
            yield from templates(each)


def load(name: str) -> Schema:
    return yaml.safe_load((DEPLOY / "kubernetes" / name).read_text())


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("kubernetes/*.yaml")), ids=lambda p: p.name)
def test_manifests_have_the_fields_that_the_apis_have(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    check(manifest)
    for place in (manifest["spec"], *templates(manifest)):
        place["conurrencyPolicy"] = "Forbid"
        with pytest.raises(jsonschema.ValidationError):
            check(manifest)
        del place["conurrencyPolicy"]


def test_gpu_workers_scale_to_zero_and_volumes_exist() -> None:
    job = load("rayjob.yaml")["spec"]["rayClusterSpec"]
    for cluster in (job, load("raycluster.yaml")["spec"]):
        group = cluster["workerGroupSpecs"][0]
        assert cluster["enableInTreeAutoscaling"]
        assert (group["minReplicas"], group["replicas"]) == (0, 0) and group["maxReplicas"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits["nvidia.com/gpu"] == "1"
    pods = [job["headGroupSpec"], job["workerGroupSpecs"][0]]
    specs = [item["template"]["spec"] for item in pods]
    specs.append(load("cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"])
    for spec in specs:
        mounts = {item["name"] for item in spec["containers"][0]["volumeMounts"]}
        assert mounts == {item["name"] for item in spec["volumes"]}


def test_a_cluster_that_stays_wants_a_token() -> None:
    spec = load("raycluster.yaml")["spec"]
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]


def commands() -> dict[str, list[str]]:
    pod = load("cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    service = (DEPLOY / "systemd" / "ppfr.service").read_text()
    started = re.search(r"^ExecStart=/usr/bin/env (.*)$", service, re.M)
    assert started
    return {
        "RayJob": shlex.split(load("rayjob.yaml")["spec"]["entrypoint"]),
        "RayCronJob": shlex.split(load("raycronjob.yaml")["spec"]["jobTemplate"]["entrypoint"]),
        "CronJob": ["ppfr", *pod["containers"][0]["args"]],
        "systemd": shlex.split(started[1]),
    }


@pytest.mark.parametrize("name", commands())
def test_their_commands_are_ones_that_we_understand(name: str) -> None:
    program, command, *options = commands()[name]
    assert (program, command) == ("ppfr", "sanitize")
    values = sanitize.make_context("ppfr sanitize", options).params
    assert values["input"] and values["output"] and values["identity_key_file"]
    assert not any(re.search("secret|password|token", text, re.I) for text in options)


def test_versions_agree_with_the_lock() -> None:
    lock = (DEPLOY.parent / "requirements.lock").read_text()
    for cluster in (load("rayjob.yaml")["spec"]["rayClusterSpec"], load("raycluster.yaml")["spec"]):
        assert f"ray=={cluster['rayVersion']}" in lock


def test_systemd_units() -> None:
    for path in sorted((DEPLOY / "systemd").iterdir()):
        for line in path.read_text().splitlines():
            assert not line or line[0] in "#[" or re.match(r"[A-Z][A-Za-z]+=\S", line), line
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not here; only the form of the units was checked")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(DEPLOY / "systemd" / "ppfr.timer")],
        capture_output=True,
        text=True,
    )
    assert "ppfr" not in done.stderr, done.stderr


def test_the_image_holds_what_it_needs_and_no_more() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = {name for line in re.findall(r"^COPY (.*)$", text, re.M) for name in line.split()[:-1]}
    allowed = {
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied - {"ppfr_ops/__init__.py"} == allowed
    assert "-r requirements" not in text, "tests and documentation tools have no place in an image"
    assert all((DEPLOY.parent / name).exists() for name in copied)
    assert "USER ppfr" in text


def test_the_one_file_job_says_what_became_of_it(tmp_path: Path) -> None:
    write_sample(tmp_path / "faces", count=6, identities=3, files=1)
    script = DEPLOY.parent / "examples" / "hub_job.py"
    options = ["--input", "faces", "--output", "out", "--method", "blur", "--metrics", "none"]
    done = subprocess.run(
        [sys.executable, str(script), *options],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(DEPLOY.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["records"] == 6 and (tmp_path / told["release"] / "manifest.json").is_file()
    head = script.read_text().split("# ///")[1]
    assert "dependencies" in head  # PEP 723
