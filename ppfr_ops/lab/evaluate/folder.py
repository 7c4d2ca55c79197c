"""The folder of an evaluation: whose it is, and what is left in it."""

import json
import shutil
from pathlib import Path
from typing import Any

from ppfr_ops.errors import UserError
from ppfr_ops.lab.evaluate.run import write_text


def claim(out: Path, facts: dict[str, Any], force: bool) -> None:
    """Go on with what an earlier run of the same evaluation left in ``out``, or start over."""
    mark = out / "stages" / "facts.json"
    wanted = json.loads(json.dumps(facts))
    if mark.is_file() and json.loads(mark.read_text()) == wanted:
        return
    if out.exists() and any(out.iterdir()):
        if not force or not (mark.is_file() or (out / "evaluation.json").is_file()):
            raise UserError(
                f"{out} holds something else; choose another --out"
                + (" or start over with --force" if mark.is_file() else "")
            )
        for name in ("stages", "tables", "plots", "checkpoints"):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / "evaluation.json").unlink(missing_ok=True)
    write_text(mark, json.dumps(wanted))


def withdraw(out: Path) -> None:
    """Leave nothing of a run that wrong input ended, unless a stage of it is worth going on."""
    stages = [path.name for path in (out / "stages").iterdir()]
    if stages == ["facts.json"] and not (out / "checkpoints").exists():
        shutil.rmtree(out / "stages")
        shutil.rmtree(out / "tables", ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()
