#!/usr/bin/env bash
# The wheel as a stranger has it: in an environment of its own, in a folder outside the checkout,
# the embedded sample is sanitized, evaluated, reported and verified.
#
#   tests/installed.sh WHEEL             dependencies are installed, too (an empty environment)
#   tests/installed.sh WHEEL PYTHON      dependencies are those of PYTHON's environment
set -euo pipefail
wheel=$(realpath "$1")
lock=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../requirements.lock")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
"${2:-python3}" -m venv venv
if [ $# -eq 1 ]; then
    venv/bin/pip install --quiet --disable-pip-version-check --constraint "$lock" "$wheel"
else
    # A path in a .pth file comes after our own folder, and the .pth files there are not read: the
    # checkout that is installed there as editable is not seen.
    "$2" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' \
        > "$(venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/dependencies.pth"
    venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-index "$wheel"
fi
venv/bin/python - <<'PYTHON'
import importlib.util
import pathlib
import sys

import ppfr_ops

assert pathlib.Path(sys.prefix) in pathlib.Path(ppfr_ops.__file__).parents, ppfr_ops.__file__
assert importlib.util.find_spec("pipelines") is None, "pipelines must not be installed"
assert importlib.util.find_spec("schemas") is None, "schemas must not be installed"
heavy = {"torch", "ray", "apache_beam", "click"} & set(sys.modules)
assert not heavy, f"import ppfr_ops loads {heavy}"
PYTHON
# No FR model can be shipped: a stand-in that reads coarse colours.
venv/bin/python - <<'PYTHON'
import torch


class Coarse(torch.nn.Module):
    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        coarse = torch.nn.functional.adaptive_avg_pool2d(faces - 127.5, 8).flatten(1)
        return torch.nn.functional.normalize(coarse, dim=1)


torch.jit.trace(Coarse(), torch.zeros(2, 3, 112, 112)).save("fr.ts.pt")
PYTHON
PATH="$folder/venv/bin:$PATH"
set -x
ppfr --version
ppfr sample faces/ --count 48 --identities 8 --files 1 --pairs pairs.parquet
ppfr sanitize --input faces/ --output protected/ --fr coarse=fr.ts.pt --actors 1
ppfr evaluate --method stochastic-local --gallery faces/ --pairs pairs.parquet \
    --fr coarse=fr.ts.pt --attacks none --quick --out eval/
# Drawn faces are not what the default policy was made for: the verdict may be either.
ppfr report protected/ --evaluation eval/evaluation.json || [ $? -eq 3 ]
ppfr verify protected/
