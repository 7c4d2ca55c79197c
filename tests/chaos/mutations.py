"""Break one line that keeps a promise, and see whether a test notices: ``mutations.py --help``.

Each mutation is a line of ``MUTATIONS``: a file, a text that is in it once, what stands there
instead, and the tests that should notice. They run in a copy of the tree, each in a fork of one
process that has loaded the libraries. What survives is printed.
"""

# ruff: noqa: E501

import argparse
import contextlib
import importlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240.0
"""That a test may take; a mutation after which it hangs is noticed."""


@dataclass(frozen=True)
class Mutation:
    file: str
    line: str
    instead: str
    tests: str


FENCED = "tests/test_fenced.py"
LEDGER = "tests/test_ledger.py -k not many_copies"
DIGEST = "tests/test_promises.py -k digest"
KEPT = (
    "tests/test_kept.py tests/test_batch_parity.py -k kept or keeps or hide or refuses or picture"
)
BOUNDS = "tests/test_bounds.py -k batch or own or measured or nan or falls_short"
POLICY = "tests/test_policy.py -k figures or measured or worst or forecast or wrong or residual"
PARSED = "tests/test_promises.py -k bound"
SEALING = "tests/vault/test_vault_sealing.py"
VAULT = "tests/vault/test_vault_audit.py tests/vault/test_vault_store.py tests/vault/test_vault_fenced.py"
PEOPLE = "tests/vault/test_vault_people.py tests/vault/test_vault_recovery.py"
DP = "tests/test_dp.py -k account or charge or spend or photos or tried or unit_person or releases_of"
VERIFY = "tests/test_verify.py tests/test_tampering.py"
ALONE = "tests/test_standalone.py"
SIGNED = "tests/test_verify.py -k plain_signature"
ROTATED = "tests/vault/test_vault_fenced.py"
SECRETS = "tests/test_secrets.py"
SORTED = "tests/test_independent.py -k place_of"
MATCH = "tests/match/test_accounts.py"
REPORT = "tests/test_report.py -k verdict or words or back"
OF_A_PICTURE = "tests/test_one_verdict.py -k of_a_picture or of_which"
SPOILT = "tests/vault/test_vault_spoilt.py"

_BY_FILE: dict[str, list[tuple[str, str, str]]] = {
    "store/documents.py": [
        ("return self.fence is not None and newest(self) != self.fence", "return False", FENCED),
        ("return self.fence is not None and newest(self) != self.fence", "return 0 < newest(self) < (self.fence or 0)", FENCED),
        ("        self.still_mine()\n        renewed = entry", "        renewed = entry", FENCED),
        ("        self.still_mine()\n        left = {name", "        left = {name", FENCED),
        ("return begun if done or", "return None if done or", LEDGER),
        ("return self.planned is None or is_shard(unit) or unit in self.planned", "return True", "tests/vault/test_vault_kept.py"),
    ],
    "store/ledger.py": [
        ("        self.check(settings, overwrite, growing)\n        self.still_mine()", "        self.check(settings, overwrite, growing)", FENCED),
        ("        self.still_mine()\n        gone = self.paths", "        gone = self.paths", FENCED),
        ("        if self.fenced_off():\n            self._drop(entry)\n            raise LedgerError", "        if False:\n            raise LedgerError", FENCED),
        ("if begun.get(key) != settings.get(key)", "if False", LEDGER),
        ("elif not overwrite:", "elif False:", LEDGER),
        ("if not self.create_bytes(text, *place):", "if self.put(text, *place):", LEDGER),
        ("mine = counted.copy_id == entry.copy_id", "mine = True", LEDGER),
        ("if path not in wanted and _OURS.fullmatch(path):", "if False:", LEDGER),
        ("if path not in wanted and _OURS.fullmatch(path):", "if path not in wanted:", LEDGER),
        ("if self.size(shard.path) != shard.bytes:\n                return False", "if False:\n                return False", LEDGER),
        ("return entry if entry is not None and self._complete(entry) else None", "return entry", LEDGER),
        ("if any(not _OURS.fullmatch(path[len(self.root) + 1 :]) for path in paths):", "if False:", LEDGER),
        ("            os.utime(target, (NO_DATE, NO_DATE))", "            pass", "tests/test_sanitizer.py tests/test_guessing.py tests/test_files_out.py -k date or time or guess"),
    ],
    "store/lease.py": [
        ("fence = last + 1", "fence = last or 1", "tests/test_fenced.py tests/test_settled.py tests/test_promises.py"),
        ('if state == "alive":\n        return False', 'if state == "alive":\n        return True', "tests/test_increments.py -k lease"),
    ],
    "store/folder.py": [
        ("mode = 0o600 if self._is_owners(target) else self.mode", "mode = self.mode", LEDGER),
        ("os.mkdir(self.path(EVIDENCE), 0o700)", "os.mkdir(self.path(EVIDENCE), 0o755)", LEDGER),
        ("kept = kept and self.read_bytes(*place) == b\"first\"", "kept = True", "tests/test_stores.py -k ignores"),
    ],
    "store/account.py": [
        ("self.losses[pseudonym] = self.losses.get(pseudonym, Loss()) + one.times(count)", "self.losses[pseudonym] = one.times(count)", DP),
        ("self.records[pseudonym] += count", "self.records[pseudonym] = count", DP),
        ("other = charge if made else self._read(path[-1])", "other = charge", DP),
        ("if other.name == charge.name:", "if True:", DP),
        ("if release == charge.release and unit != charge.unit:", "if release == charge.release:", DP),
        ("allowed(self._known, charge)\n                path", "pass\n                path", DP),
    ],
    "sanitize/accounts.py": [
        ("if after > budget * (1 + 1e-9):", "if before > budget * (1 + 1e-9):", DP),
        ("if count > given.photos:", "if count > given.photos + 1:", DP),
        ('if given.unit == "person" and people.total() != tables.records.num_rows:', "if False:", DP),
        ("checked = budget is not None or given.unit == \"person\"", "checked = False", DP),
        ("    if over:\n        who, before", "    if False:\n        who, before", DP),
    ],
    "sanitize/prepare.py": [
        ('"--fr": [[spec.name, spec.digest()]', '"--fr": [[spec.name]', DIGEST),
        ('"--method": method.digest(),', '"--method": "",', DIGEST),
        ('"--identity-key-file": "" if key is None else mark(key),', '"--identity-key-file": "",', DIGEST),
        ('"--max-disclosure": options.max_disclosure or method.disclosure_limit,', '"--max-disclosure": None,', DIGEST),
        ('None if policy is None else policy.model_dump(include={"record", "redraws"})', 'None if policy is None else policy.model_dump(include={"redraws"})', DIGEST),
        ('"--seed": "system" if options.seed is None else "seeded",', '"--seed": "system",', DIGEST),
        ('named["--detector"] = options.photographs.detector_digest()', "pass", DIGEST),
        ("for name, value in {**shaping(options), **named}.items()", "for name, value in named.items()", DIGEST),
        ("    if bound and not method.redrawable:", "    if False:", "tests/test_methods.py -k drawn_once"),
        ("return secret if seeded else stretched(secret, \"identities\")", "return secret", SECRETS),
    ],
    "options.py": [
        ('        if extra(field)["shapes"]:', '        if extra(field)["shapes"] and name != "quality":', DIGEST),
        ("values |= {} if group is None else shaping(group)", "pass", DIGEST),
        ("default, description=description, repr=not private", "default, description=description, repr=True", "tests/test_options.py"),
        ('"manifest": False if private else shapes', '"manifest": shapes', "tests/test_options.py"),
    ],
    "source/kept.py": [
        ("return None if inside and any(test(kind) for test in _PIXELS) else kind", "return kind", KEPT),
        ("or any(looks_like_picture(text) for text in texts)", "", KEPT),
        ("candidates += [_decoded(bytes.fromhex, run[:32]) for run in _HEX.findall(flat)]", "pass", KEPT),
        ("candidates += [_decoded(base64.b64decode, run[:32]) for run in _BASE64.findall(letters)]", "pass", KEPT),
        ("candidates += [_decoded(bytes.fromhex, run) for run in printed]", "pass", KEPT),
        ("bad.setdefault(row, \"kept_picture\")", "pass", KEPT),
        ("numbers > MOST_NUMBERS", "False", "tests/test_kept.py"),
        ("sum(map(len, texts)) > LONGEST_TEXT", "False", "tests/test_kept.py"),
        ("    if kind is None:\n        raise", "    if False:\n        raise", KEPT),
    ],
    "store/earlier.py": [
        ("if hashlib.sha256(data).hexdigest() != shard.sha256:", "if False:", "tests/test_one_verdict.py"),
        ("if digest is None or sealed.get(name.removesuffix(\".json\")) != digest:", "if False:", "tests/test_one_verdict.py"),
    ],
    "sanitize/photographs/unchanged.py": [
        ("return same and entry.stage == \"whole\" and entry.method_digest == job.method_digest", "return True", "tests/test_one_verdict.py"),
        ("return before.get(row) == now.get(row)", "return True", "tests/test_one_verdict.py"),
    ],
    "review/verdicts.py": [
        ("return self.kind == \"drop\" or self.is_of(picture)", "return True", OF_A_PICTURE),
        ("return self.kind == \"drop\" or self.is_of(picture)", "return self.is_of(picture)", OF_A_PICTURE),
        ("or (self.kind == \"drop\" and not self.original)", "or not self.original", OF_A_PICTURE),
        ("here = pictures is None or said.is_of(pictures[number])", "here = True", OF_A_PICTURE),
        ("json.dumps([verdict.kind, verdict.boxes, verdict.original])", "json.dumps([verdict.kind, verdict.boxes])", OF_A_PICTURE),
    ],
    "review/serving.py": [
        ("review is None or digest_of(review) == item.other", "review is None", OF_A_PICTURE),
        ("(original or verdict in (\"ok\", \"cover\"))", "original", OF_A_PICTURE),
    ],
    "source/sums.py": [
        ("return digest == (keyed(key, picture) if key else picture.hex())", "return True", OF_A_PICTURE),
    ],
    "sanitize/mapping.py": [
        ("if mark is not None and now is not None and mark != now:", "if False:", "tests/test_evaluate.py -k paired_with_nobody"),
    ],
    "sanitize/acceptance.py": [
        ("missing = np.array([not item.bound.holds(value)", "missing = np.array([False and item.bound.holds(value)", BOUNDS),
        ("nan=_FAR, posinf=_FAR", "nan=0.0, posinf=_FAR", BOUNDS),
        ("limit = method.disclosure_limit if max_disclosure is None else max_disclosure", "limit = max_disclosure", BOUNDS),
        ("limit = method.disclosure_limit if max_disclosure is None else max_disclosure", "limit = method.disclosure_limit", BOUNDS),
        ("values = measured[item.metric].astype(np.float64)", "values = measured.get(item.metric, np.zeros(count)).astype(np.float64)", BOUNDS),
        ("over = np.flatnonzero(left > 0).tolist()", "over = np.flatnonzero(left > 1).tolist()", BOUNDS),
        ("        if not method.selects:\n            return cls()", "        if False:\n            return cls()", "tests/test_bounds.py -k held_to"),
    ],
    "contracts/policy.py": [
        ("if name in seen:", "if False:", PARSED),
        ("            if not _METRICS.fullmatch(name):", "            if False:", POLICY + " or line or unusable or policy"),
    ],
    "release/figures.py": [
        ('worst = float(values.min() if bound.sign == ">=" else values.max())', "worst = float(values.mean())", POLICY),
        ("holds = bound.holds(float(values.min())) and bound.holds(float(values.max()))", "holds = bound.holds(float(values.mean()))", POLICY),
        ("holds = release.count_missing(name) == 0", "holds = True", POLICY),
        ("holds = found is not None and bound.holds(found)", "holds = found is None or bound.holds(found)", POLICY),
    ],
    "release/documents/required.py": [
        ("        not findings,\n", "        True,\n", "tests/test_report.py -k released"),
        ("        draws == \"system\",\n", "        True,\n", REPORT),
        ("        not lost,\n", "        True,\n", REPORT),
        ("        manifest.counts.records > 0,\n", "        True,\n", REPORT),
    ],
    "vault/sealing.py": [
        ("pad(original), place.bound(b\"seal\")", "pad(original), b\"\"", SEALING),
        ("key, place.bound(b\"wrap\")))", "key, b\"\"))", SEALING),
        ("if not hmac.compare_digest(sealed.commitment, _expand(key, b\"commit\")):", "if False:", SEALING),
        ("parts = (_DOMAIN, purpose, self.release.encode(), self.record.encode(), self.picture)", "parts = (_DOMAIN, purpose, self.record.encode(), self.picture)", SEALING),
        ("parts = (_DOMAIN, purpose, self.release.encode(), self.record.encode(), self.picture)", "parts = (_DOMAIN, purpose, self.release.encode(), self.record.encode())", SEALING),
        ("len(part).to_bytes(4, \"big\") + part", "part", SEALING),
        ("        if person is not None:\n            bound", "        if False:\n            bound", PEOPLE),
        ("return padded.ljust(bucket(len(padded)), b\"\\0\")", "return padded", SEALING),
        ("if end > len(padded) or any(padded[end:]):", "if end > len(padded):", SEALING),
    ],
    "vault/store.py": [
        ("if self.fence is not None and newest(self.files) != self.fence:", "if False:", VAULT),
        ("        # Anyone who rotates from now on finds these keys; anyone who did before is found out here.\n        self._check(access)", "        pass", ROTATED),
        ("if self.generations.number() != access.generation.number:", "if False:", VAULT),
        ("gone = {parts for parts in map(parts_of, names) if parts not in published}", "gone = set()", VAULT),
        ("self._wrapped.clear(folder, needed_in=generation.name)", "self._wrapped.clear(folder)", VAULT),
        ("        self._begin(after)\n        self._complete(old, after, key)", "        self._begin(after)", VAULT),
        ("self.files.write({\"revoke\": True, \"entries\": sorted(entries)}, _PENDING)", "pass", VAULT),
        ("name: Entry(each.picture, None) if name in there else each", "name: each", VAULT),
        ("        if not unreadable:\n", "        if True:\n", ROTATED),
    ],
    "vault/wrapped.py": [
        ("        self._still_mine()\n        old = _to_overwrite", "        old = _to_overwrite", VAULT),
        ("    if needed_in is None or self._has(needed_in, generation, name):", "    if True:", VAULT),
        ("if unwrapped(self.read(after[0].name, unit, copy), release, after[1]) != known:", "if False:", ROTATED),
    ],
    "vault/recovery.py": [
        ("if strict and hashlib.sha256(data).hexdigest() != shard.sha256:", "if False:", PEOPLE),
        ("unwrapped(self.vault.keys(unit, copy), self.release, self.key)", "pass", PEOPLE),
    ],
    "vault/audit.py": [
        ('or entry.get("before") != before', "", VAULT + " tests/vault/test_vault_hostile.py " + PEOPLE),
        ('or entry.get("digest") != _digest(entry)\n        ):', "):", VAULT + " tests/vault/test_vault_hostile.py " + PEOPLE),
        ("if files.create_bytes(text, _FOLDER,", "if files.put(text, _FOLDER,", VAULT + " tests/vault/test_vault_hostile.py " + PEOPLE),
    ],
    "release/verify.py": [
        ("if manifest.version < min_version:", "if False:", VERIFY),
        ("    if total != manifest.records:", "    if False:", "tests/test_verify.py -k sum_of"),
        ("yield from _check_names(seen, bad)", "yield from ()", VERIFY),
        ("if manifest.text() != raw:", "if False:", VERIFY),
        ("for record, path, before in twice(seen.ids):", "for record, path, before in ():", VERIFY),
        ("if bundle is not None and bundle.payload != expected:", "if False:", VERIFY),
        ("if manifest.method.claims_epsilon:", "if False:", "tests/test_dp_release.py -k epsilon"),
    ],
    "release/listing.py": [
        ("if hashlib.sha256(data).hexdigest() != told.sha256:", "if False:", VERIFY),
        ("if size != told.bytes:", "if False:", VERIFY),
    ],
    "release/looking.py": [
        ("fault = None if fills_its_scan(data) else BEHIND", "pass", "tests/test_hostile_release.py -k scan"),
    ],
    "release/standalone/parquet.py": [
        ("if values_of is not None and values and values_of[1] < 1:", "if False:", "tests/test_standalone.py -k nothing_points"),
        ("if place != end or found != values:", "if place != end:", "tests/test_standalone.py -k nothing_points"),
        ("return place == size - 8 - int", "return True or place == size - 8 - int", "tests/test_standalone.py -k nothing_points"),
    ],
    "imaging/scans.py": [
        ("decoder.decode(data[:-3])", "decoder.decode(data[:-200])", "tests/test_hostile_release.py -k scan"),
        ("decoder.decode(data[:-3])", "decoder.decode(data)", "tests/test_hostile_release.py -k scan"),
    ],
    "release/standalone/folder.py": [
        ("if item.is_symlink():", "if False:", VERIFY),
        ("sum(2 * len(os.fsencode(name)) + 200 for name in names)", "(1 << 30)", "tests/test_hostile_release.py -k lies_there"),
    ],
    "release/signing.py": [
        ("return self.public_key == _named(key)", "return True", SIGNED),
        ("check_signature(base64.b64decode(self.signature), data, key)", "pass", SIGNED),
        ("except (InvalidSignature, ValueError):", "except InvalidSignature:", SIGNED),
    ],
    "release/standalone/check.py": [
        ("if footer.rows != told.rows:", "if False:", "tests/test_tampering.py -k finds_every"),
        ("if name not in allowed:", "if False:", ALONE),
        ("if name in seen.ids:", "if False:", ALONE),
        ("check_names(seen)\n", "pass\n", ALONE),
        ("        if fault is not None:\n            seen.find(told.path, fault)\n        elif", "        if False:\n            pass\n        elif", ALONE),
    ],
    "sanitize/sealing.py": [
        ("return replace(job, **job.nothing_secret(), sealed=sealed), key", "return replace(job, sealed=sealed), key", SECRETS),
        ('        ledger.remove(*PLACE, f"{name}.json")', "        pass", SECRETS),
        ("            ledger.remove(*PLACE, name)\n    sealed", "            pass\n    sealed", SECRETS),
    ],
    "sanitize/job.py": [
        ('SECRETS = ("key", "people", "pseudonym_key", "secrets", "vault")', 'SECRETS = ("key", "people", "pseudonym_key", "secrets")', SECRETS),
        ("        if self.has_secrets:\n            raise TypeError", "        if False:\n            raise TypeError", SECRETS),
    ],
    "sanitize/fingerprints.py": [
        ("now = None if table is None else content(table, self._key)", "now = None", SORTED),
    ],
    "sanitize/increments.py": [
        ("            changed += 1\n    if changed:", "            changed += 0\n    if changed:", SORTED),
        ("if lost > allowed_deletions(job.options.allow_deletions, rows):", "if False:", "tests/vault/test_vault_kept.py -k half"),
        ("if lost > allowed_deletions(job.options.allow_deletions, rows := there.total()):", "if False:", SPOILT),
        ("    if spoilt := sum(changed.values()):", "    if False:", SPOILT),
        ("count += max(0, stop - max(start, end))", "count += stop - start", SPOILT),
        ("self._pictures.update(source.files)", "self._others.update(source.files)", SPOILT),
    ],
    "match/accounts.py": [
        ("if log.queries.get(client, 0) >= self.policy.budget:", "if log.queries.get(client, 0) > self.policy.budget:", MATCH),
        ("if told + log.identifications >= self.policy.record_budget:", "if told >= self.policy.record_budget:", MATCH),
        ("if times & (times - 1) == 0:", "if True:", MATCH),
    ],
    "store/chain.py": [
        ("if not linked or digest != _digest(entry):", "if not linked:", MATCH),
        ("if not linked or digest != _digest(entry):", "if digest != _digest(entry):", MATCH),
        ("fcntl.flock(self._file, fcntl.LOCK_EX)", "pass", MATCH),
        ("if torn:", "if False:", MATCH),
    ],
    "sanitize/batch.py": [
        ("        read = refuse_pictures(pa.table(data))", "        read = pa.table(data)", KEPT),
        ("check_method(options, method)", "pass", KEPT),
    ],
}  # fmt: skip
MUTATIONS = [
    Mutation(f"ppfr_ops/{file}", line, instead, tests)
    for file, changes in _BY_FILE.items()
    for line, instead, tests in changes
]


def run(tree: Path, tests: str) -> bool:
    """Whether tests pass, in a fork."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setsid()
            os.chdir(tree)
            sys.path[:] = [str(tree), str(tree / "tests"), *sys.path]
            quiet = open(os.devnull, "w")  # noqa: SIM115
            os.dup2(quiet.fileno(), 1)
            os.dup2(quiet.fileno(), 2)
            import pytest

            paths, _, some = tests.partition(" -k ")
            chosen = ["-k", some] if some else []
            there = [path for path in paths.split() if (tree / path).exists()]
            asked = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *chosen, *there]
            code = int(pytest.main(asked))
        finally:
            os._exit(code)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code == 5:
                raise SystemExit(f"no test of that name: {tests}")
            return code == 0
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@contextlib.contextmanager
def changed(tree: Path, mutation: Mutation) -> Iterator[None]:
    path = tree / mutation.file
    text = path.read_text()
    path.write_text(text.replace(mutation.line, mutation.instead, 1))
    for cached in path.parent.glob(f"__pycache__/{path.stem}.*"):
        cached.unlink()
    try:
        yield
    finally:
        path.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="at most")
    parser.add_argument("--only", default="", help="a part of the file's name")
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("--numbers", type=int, nargs="*", help="only these")
    parser.add_argument("--check", action="store_true", help="only whether the lines are there")
    asked = parser.parse_args()
    chosen = [(n, m) for n, m in enumerate(MUTATIONS) if asked.only in m.file and n >= asked.start]
    if asked.numbers is not None:
        chosen = [(n, m) for n, m in chosen if n in asked.numbers]
    missing = [m for _, m in chosen if (ROOT / m.file).read_text().count(m.line) < 1]
    for mutation in missing:
        print(f"not there: {mutation.file}: {mutation.line!r}")
    if asked.check or missing:
        print(f"{len(chosen)} mutations")
        return int(bool(missing))
    sys.dont_write_bytecode = True
    for module in ("pytest", "numpy", "pyarrow.parquet", "torch", "cv2", "PIL.Image", "pydantic"):
        with contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(module)
    until, survived, noticed = time.monotonic() + 60 * asked.minutes, [], 0
    sound: dict[str, bool] = {}
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder) / "tree"
        left_out = shutil.ignore_patterns(".git", ".venv", "out", "__pycache__", "*.egg-info")
        shutil.copytree(ROOT, tree, ignore=left_out)
        (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        for number, mutation in chosen:
            if time.monotonic() > until:
                break
            if mutation.tests not in sound:
                sound[mutation.tests] = run(tree, mutation.tests)
                if not sound[mutation.tests]:
                    print(f"fails as it is: {mutation.tests}", flush=True)
            if not sound[mutation.tests]:
                continue
            with changed(tree, mutation):
                alive = run(tree, mutation.tests)
            noticed += not alive
            if alive:
                survived.append(number)
                print(f"SURVIVED {number}: {mutation}", flush=True)
            else:
                print(f"noticed {number}: {mutation.file}", file=sys.stderr, flush=True)
    print(json.dumps({"mutations": noticed + len(survived), "survived": survived}))
    return int(bool(survived))


if __name__ == "__main__":
    raise SystemExit(main())
