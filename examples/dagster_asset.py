"""A Dagster asset: a protected dataset, made by the command and described by its JSON.

    pip install dagster ppfr-sanitizer
    dagster asset materialize -f examples/dagster_asset.py --select protected_faces --config-json \\
        '{"ops": {"protected_faces": {"config": {"input": "faces/", "output": "shared/"}}}}'

Dagster may live in an environment of its own: all that it needs is ``ppfr`` on the path. What the
command leaves unfinished, a retry goes on with; what only a person can change is not tried again.
"""

import json
import subprocess
from collections.abc import Sequence

import dagster as dg


class Sanitize(dg.Config):
    input: str
    output: str
    options: Sequence[str] = ()
    """More of ``ppfr sanitize``, such as ``--incremental``."""


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=2, delay=60))
def protected_faces(config: Sanitize) -> dg.MaterializeResult:
    command = ["ppfr", "sanitize", "--input", config.input, "--output", config.output, "--json"]
    done = subprocess.run([*command, *config.options], capture_output=True, text=True)
    said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
    if done.returncode:
        # 2: wrong options or input; 3: finished, and not as it was asked for.
        raise dg.Failure(
            f"ppfr, exit code {done.returncode}: {said}", allow_retries=done.returncode == 1
        )
    counts = json.loads(done.stdout)["counts"]
    told = {name: counts[name] for name in ("records", "dead_letters")}
    return dg.MaterializeResult(metadata={**told, "release": f"{config.output}/release"})


nightly = dg.ScheduleDefinition("nightly", target=[protected_faces], cron_schedule="0 3 * * *")
defs = dg.Definitions(assets=[protected_faces], schedules=[nightly])
