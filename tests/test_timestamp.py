"""A time stamp on the signature (RFC 3161), by an authority made with openssl."""

import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_standalone import run_alone
from test_verify import untouched

from ppfr_ops.cli.verify import main
from ppfr_ops.release.attestation import read_bundle

__all__ = ["untouched"]

pytest.importorskip("rfc3161_client")

CONFIG = """
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
[signer]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
[tsa]
serial = {folder}/serial
signer_cert = {folder}/signer.pem
signer_key = {folder}/signer.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
"""


def openssl(*arguments: object) -> None:
    command = ["openssl", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def authority(folder: Path) -> Path:
    """Files of an authority; its configuration."""
    folder.mkdir()
    config = folder / "config"
    config.write_text(CONFIG.format(folder=folder))
    (folder / "serial").write_text("01\n")
    curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    for name in ("root", "signer"):
        openssl("genpkey", *curve, "-out", folder / f"{name}.key")
    made = ("req", "-new", "-config", config)
    root = ("-x509", "-days", 9, "-subj", "/CN=root", "-extensions", "root")
    openssl(*made, *root, "-key", folder / "root.key", "-out", folder / "root.pem")
    asked = ("-subj", "/CN=authority", "-out", folder / "asked")
    openssl(*made, "-key", folder / "signer.key", *asked)
    signing = ("-CA", folder / "root.pem", "-CAkey", folder / "root.key", "-CAcreateserial")
    form = ("-extfile", config, "-extensions", "signer", "-days", 9)
    openssl("x509", "-req", "-in", folder / "asked", *signing, *form, "-out", folder / "signer.pem")
    return config


class Answers(http.server.BaseHTTPRequestHandler):
    folder: Path
    way = "well"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.way == "well":
            Answers.asked = body
        question, answer = self.folder / "question", self.folder / "answer"
        question.write_bytes(getattr(Answers, "asked", body) if self.way == "old" else body)
        config = self.folder / "config"
        given = ("-config", config, "-section", "tsa", "-queryfile", question, "-out", answer)
        openssl("ts", "-reply", *given)
        self.send_response(500 if self.way == "broken" else 200)
        self.end_headers()
        self.wfile.write(b"no stamp" if self.way == "other" else answer.read_bytes())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    authority(tmp_path / "tsa")
    Answers.folder, Answers.way = tmp_path / "tsa", "well"
    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_signature_is_stamped_and_the_stamp_checked(
    url: str, untouched: Path, tmp_path: Path
) -> None:
    shutil.copytree(untouched / "out", tmp_path / "out")
    root, path = tmp_path / "tsa/root.pem", tmp_path / "out/release/manifest.sig"

    def run(*more: object, place: str = "out") -> tuple[int, str]:
        given = [str(tmp_path / place), "--public-key", str(untouched / "pub"), *map(str, more)]
        done = CliRunner().invoke(main, given, standalone_mode=False)
        return (2, str(done.exception)) if done.exception else (done.return_value, done.output)

    assert run() == (0, "all holds (version 1)\n")
    assert run("--timestamp-root", root) == (1, "manifest.sig: bears no time stamp\n")
    for way in ("broken", "other"):
        Answers.way = way
        assert run("--timestamp", url, "--timestamp-root", root)[0] == 2
    Answers.way = "well"
    before = path.read_bytes()
    code, said = run("--timestamp", url, "--timestamp-root", root)
    assert code == 0 and "signed before 2" in said and path.read_bytes() != before, said
    told = datetime.strptime(said.split("before ")[1][:19], "%Y-%m-%d %H:%M:%S")
    assert abs(told.replace(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=5)
    assert run() == (0, "all holds (version 1)\n")
    for place in ("out", "out/release"):
        assert "signed before" in run("--timestamp-root", root, place=place)[1]
    code, lines = run_alone(tmp_path / "out/release", "--public-key", str(untouched / "pub"))
    assert code == 0 and lines[0].startswith("not checked: the time stamp")

    # By openssl alone, as the page says it.
    bundle = read_bundle(path.read_bytes())
    assert bundle is not None and bundle.timestamp is not None
    (tmp_path / "sig").write_bytes(bundle.signature)
    (tmp_path / "stamp").write_bytes(bundle.timestamp)
    what = ("-data", tmp_path / "sig", "-in", tmp_path / "stamp")
    openssl("ts", "-verify", *what, "-CAfile", root, "-untrusted", tmp_path / "tsa/signer.pem")

    # Another authority, a stamp on another signature, an answer to an earlier question.
    authority(tmp_path / "others")
    assert "no time stamp on this" in run("--timestamp-root", tmp_path / "others/root.pem")[1]
    other = bundle.with_timestamp(bundle.timestamp[:-9] + bytes(9))
    path.write_bytes(other.text())
    assert run("--timestamp-root", root)[0] == 1
    Answers.way = "old"
    assert run("--timestamp", url, "--timestamp-root", root)[0] == 2
