"""The signature of a release, by ``openssl``: DSSE over an in-toto statement in a Sigstore bundle.

This module needs Python's standard library alone, as all of ``release.standalone``.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tempfile

from ppfr_ops.release.standalone.folder import Release, once


def check_signature(seen: Release, public_key: str | None) -> None:
    """What is signed are name and sha256 of every file; the key tells by whom."""
    name = "manifest.sig"
    data = seen.small(name)
    if data is None:
        if os.path.lexists(os.path.join(seen.root, name)):
            seen.find(name, "is a symbolic link, or no plain file")
        elif public_key is not None:
            seen.find(name, "there is no signature")
        else:
            seen.leave("the signature: there is none")
        return
    try:
        bundle = json.loads(data, object_pairs_hook=once)
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        (signed,) = envelope["signatures"]
        signature = base64.b64decode(signed["sig"], validate=True)
        kind = str(envelope["payloadType"])
        hint = str(bundle["verificationMaterial"]["publicKey"]["hint"])
        resources = json.loads(payload, object_pairs_hook=once)["predicate"]["resources"]
        named = {str(item["name"]): str(item["digest"]) for item in resources}
    except (ValueError, LookupError, TypeError, RecursionError):
        seen.find(name, "is no readable signature")
        return
    rewritten = json.dumps(bundle, indent=1, ensure_ascii=False) + "\n"
    if rewritten.encode("utf-8", "surrogatepass") != data:
        seen.find(name, "holds more than a signature")
    _check_statement(seen, named)
    if "timestampVerificationData" in bundle["verificationMaterial"]:
        seen.leave("the time stamp on the signature: openssl ts -verify does")
    if public_key is None:
        seen.leave("who signed it: no --public-key was given")
        return
    if shutil.which("openssl") is None:
        seen.leave("the signature: there is no openssl on this machine")
        return
    encoded = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    if hint != _hint(public_key) or not _openssl(public_key, signature, encoded):
        seen.find("manifest.json", "is not what was signed, or another key signed it")


def _check_statement(seen: Release, named: dict[str, str]) -> None:
    wanted = {
        "manifest.json": hashlib.sha256(seen.raw).hexdigest(),
        seen.listing: str(seen.manifest["listing"].get("sha256")),
    }
    every = {file.path: file.sha256 for file in seen.files}
    few = {file["path"]: file["sha256"] for file in seen.manifest["files"]}
    if named.get("manifest.json") != wanted["manifest.json"]:
        seen.find("manifest.json", "is not what was signed, or another key signed it")
    elif named not in (wanted | every, wanted | few):
        seen.find("manifest.sig", "its statement is not that of this release")


def _hint(public_key: str) -> str:
    """sha256 of a public key as PEM is written, by which a bundle names it."""
    with open(public_key, "rb") as file:
        lines = [line.strip() for line in file.read(1 << 16).splitlines()]
    body = b"".join(line for line in lines if line and not line.startswith(b"-----"))
    wrapped = [body[place : place + 64] for place in range(0, len(body), 64)]
    kind = b"PUBLIC KEY-----"
    pem = b"\n".join([b"-----BEGIN " + kind, *wrapped, b"-----END " + kind, b""])
    return hashlib.sha256(pem).hexdigest()


def _openssl(public_key: str, signature: bytes, data: bytes) -> bool:
    """Whether a signature is this key's: Ed25519, or ECDSA with the hash of its curve's size."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("signature", "data")]
        for path, content in zip(paths, (signature, data), strict=True):
            with open(path, "wb") as file:
                file.write(content)
        raw = ["pkeyutl", "-verify", "-pubin", "-inkey", public_key, "-rawin", "-in", paths[1]]
        ways = [[*raw, "-sigfile", paths[0]]]
        for hashed in ("sha256", "sha384", "sha512"):
            ways.append(
                ["dgst", f"-{hashed}", "-verify", public_key, "-signature", paths[0], paths[1]]
            )
        return any(
            subprocess.run(["openssl", *way], capture_output=True, check=False).returncode == 0
            for way in ways
        )
