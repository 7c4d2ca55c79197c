"""Surrogates: heads, students, denoisers, their files and cards, and who refuses them."""

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from ppfr_ops import sample
from ppfr_ops.cli import distill as command
from ppfr_ops.cli import evaluate, serve_fr, train
from ppfr_ops.contracts.surrogate import SurrogateCard
from ppfr_ops.errors import UserError
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.lab.distill import collecting, heads, students
from ppfr_ops.lab.distill.denoising import Cleaner, cleaning_loss, wiener
from ppfr_ops.lab.distill.reading import Opened
from ppfr_ops.lab.distill.saving import CARD, ENROLMENT, ONNX, SCRIPT
from ppfr_ops.lab.distill.scoring import of_scores
from ppfr_ops.lab.queries.server import RecognizerServer
from ppfr_ops.recognizers import Recognizer, RecognizerSpec, mark_of, refuse_marked


class Corners(torch.nn.Module):
    """Means of a grid of squares, as a template; ``shift`` makes another recogniser of it."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.avg_pool2d(faces[:, :, self.shift :, self.shift :], 16)
        x = pooled.flatten(1)
        x = x - x.mean(1, keepdim=True)
        return torch.nn.functional.normalize(x, dim=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces, a public recogniser, and a target that is another one."""
    folder = tmp_path_factory.mktemp("world")
    for name, shift in (("public", 0), ("target", 9)):
        torch.jit.script(Corners(shift)).save(str(folder / f"{name}.pt"))
    png = Encoding("png")
    rows = [{"bytes": png.encode(face), "path": ""} for face in sample.faces(90, seed=5)]
    pq.write_table(pa.table({"image": rows}), folder / "faces.parquet")
    return folder


def distil(world: Path, out: Path, *more: str) -> tuple[int, str, RecognizerServer]:
    target = Recognizer(RecognizerSpec("target", str(world / "target.pt")), 1)
    server = RecognizerServer(target)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    line = ["--endpoint", "http://{}:{}".format(*server.address), "--target", "theirs"]
    line += ["--faces", str(world / "faces.parquet"), "--fr", f"public={world / 'public.pt'}"]
    done = CliRunner().invoke(command.main, [*line, "--out", str(out), *more])
    server.close()
    thread.join()
    return done.exit_code, done.output, server


def test_a_head_by_templates_and_who_refuses_it(world: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    out = tmp_path / "out"
    code, text, server = distil(world, out, "--budget", "80", "--workers", "3")
    assert code == 0, text
    card = SurrogateCard.model_validate_json((out / CARD).read_text())
    assert card.queries == card.answers == len(server.received) == 80
    assert card.void_as_black_box and "void" in card.notice and card.account_lines == 82
    assert card.fit.spearman is not None and card.fit.baseline is not None
    assert card.fit.spearman > card.fit.baseline
    faces = sample.faces(20, seed=6)
    target = Recognizer(RecognizerSpec("t", str(world / "target.pt"))).embed(faces)
    a, b = np.triu_indices(20, 1)
    for name in (SCRIPT, ONNX):
        spec = RecognizerSpec("s", str(out / name))
        found = Recognizer(spec).embed(faces)
        scores = [(x[a] * x[b]).sum(1, dtype=np.float64) for x in (found, target)]
        assert heads.spearman(*scores) > 0.5
        mark = mark_of(str(out / name))
        assert mark is not None and SurrogateCard.model_validate_json(mark).target == "theirs"
        with pytest.raises(UserError, match="surrogate of a black box: why"):
            refuse_marked(spec, "why")
    assert mark_of(str(world / "public.pt")) is None
    line = ["--method", "pixelate", "--gallery", "x", "--pairs", "x", "--out", str(tmp_path / "e")]
    with pytest.raises(UserError, match="void as --black-box"):
        evaluate._models((), (f"s={out / ONNX}",), 1)
    assert list(evaluate._models((f"s={out / ONNX}",), (), 1)) == ["s"]
    line = ["--faces", str(world), "--fr", f"dlib={out / SCRIPT}", "--out", str(tmp_path / "t")]
    done = CliRunner().invoke(train.main, line)
    assert done.exit_code == 2 and "surrogate of a black box" in done.output
    assert "--accept-distilled" in done.output

    # the same command asks nothing twice
    code, text, server = distil(world, tmp_path / "out", "--budget", "80")
    assert code == 2 and "account of another endpoint" in text  # its port is another one


def test_a_head_by_scores_alone(world: Path, tmp_path: Path) -> None:
    code, text, server = distil(
        world, tmp_path / "out", "--budget", "300", "--access", "score", "--workers", "2"
    )
    assert code == 0, text
    card = SurrogateCard.model_validate_json((tmp_path / "out" / CARD).read_text())
    assert card.access == "score" and card.queries == len(server.received) <= 300


class Layers(torch.nn.Module):
    """Two layers: the last one gives one number of each of four, which are means over places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 3, 2)
        self.last = torch.nn.Conv2d(4, 2, 55)

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(self.last(self.first(faces).relu()).flatten(1), dim=1)


def test_nothing_is_asked_after_a_failure_however_long_another_answer_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ppfr_ops.lab.distill.collecting.secrets.randbelow", lambda count: 0)
    asked, failed = [], threading.Event()

    def ask(number: int) -> int:
        asked.append(number)
        if number == 1:
            failed.set()
            raise UserError("refused")
        failed.wait()
        threading.Event().wait(0.1)
        return number

    with pytest.raises(UserError, match="refused"):
        collecting._ask_all(range(500), ask, 2)
    assert len(asked) <= 3


def test_what_the_last_layer_reads(world: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Layers().eval()
    torch.jit.script(network).save(str(tmp_path / "layers.pt"))
    opened = Opened(str(tmp_path / "layers.pt"))
    faces = torch.rand(3, 3, 112, 112) * 255
    with torch.inference_mode():
        template, inside = opened(faces)
        torch.testing.assert_close(template, network(faces))
        torch.testing.assert_close(inside, network.first(faces).relu().mean((2, 3)))
    assert opened.sizes == (2, 4)
    assert Opened(str(world / "public.pt")).sizes[1] == 0  # it has no layers


def test_a_head_on_what_the_last_layer_reads(world: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.jit.script(Layers().eval()).save(str(tmp_path / "layers.pt"))
    for access in ("template", "score"):
        more = ["--fr", f"layers={tmp_path / 'layers.pt'}", "--access", access]
        code, text, _ = distil(world, tmp_path / access, "--budget", "90", *more)
        assert code == 0, text  # TorchScript and ONNX were run and compared


def test_scores_alone_teach_what_the_target_looks_at() -> None:
    """The target weighs what the public recogniser tells; on faces that were not asked about, the
    head has learned the weights."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    public = rng.normal(size=(400, 12)).astype(np.float32)
    public /= np.linalg.norm(public, axis=1, keepdims=True)
    target = public * np.array([3.0] * 4 + [0.1] * 8, np.float32)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    pairs = collecting.pairs_to_ask(public[:300], 3000)
    a, b = pairs.T
    scored = collecting.Scored(a, b, (target[a] * target[b]).sum(1, dtype=np.float64))
    head, fit = of_scores(heads.Features([public]), scored)
    a, b = np.triu_indices(100, 1)
    truth = (target[300:][a] * target[300:][b]).sum(1, dtype=np.float64)
    found = heads.run(head, public[300:])
    learned = heads.spearman((found[a] * found[b]).sum(1, dtype=np.float64), truth)
    without = heads.spearman(heads.Features([public[300:]]).baseline(a, b), truth)
    assert learned > without + 0.1 and fit.spearman is not None


def test_what_is_asked_stays_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 8)).astype(np.float32)
    pairs = collecting.pairs_to_ask(features, 1000)
    assert 800 < len(pairs) <= 1000 and (pairs[:, 0] < pairs[:, 1]).all()
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs) and pairs.max() < 200
    faces = sample.faces(6, seed=1)
    twice = np.concatenate([faces, faces[::-1]])
    ordered = collecting.in_order(twice)
    assert len(ordered) == 6
    np.testing.assert_array_equal(ordered, collecting.in_order(faces[[3, 1, 0, 5, 4, 2]]))


def test_too_few_answers_and_options_that_do_not_go_together(world: Path, tmp_path: Path) -> None:
    code, text, _ = distil(world, tmp_path / "few", "--budget", "10")
    assert code == 2 and "only 10 answers" in text
    base = ["--faces", str(world / "faces.parquet"), "--out", str(tmp_path / "x")]
    for line, words in (
        ([], "--endpoint, or --teacher"),
        (["--endpoint", "http://127.0.0.1:9"], "needs --target"),
        (["--teacher", f"t={world / 'target.pt'}"], "needs --student"),
    ):
        done = CliRunner().invoke(command.main, [*base, *line])
        assert done.exit_code == 2 and words in done.output


@pytest.mark.parametrize("student", ["small", "medium", "target.pt"])
def test_students_go_on_where_they_were_stopped(student: str, world: Path, tmp_path: Path) -> None:
    faces = sample.faces(16, seed=2)
    target = np.eye(16, 24, dtype=np.float32)
    kind = student if student in students.SIZES else str(world / student)
    lines: list[str] = []
    for seconds in (0.5, 1.0):
        network = students.build(kind, 24)
        students.train(
            network, faces, target, 0.1, seconds, tmp_path / "c.pt", lines.append, batch=4
        )
    assert "going on after" in lines[0] or "going on after" in " ".join(lines)
    with torch.inference_mode():
        done = network(torch.full((3, 3, 112, 112), 90.0) + torch.rand(3, 3, 112, 112))
    assert done.shape == (3, 24)
    np.testing.assert_allclose(done.norm(dim=1), 1, atol=1e-5)


def test_the_denoiser_is_nearer_to_the_face_than_the_noise_and_than_the_mean() -> None:
    faces = sample.faces(60, seed=4)
    filter_ = wiener(faces[:50], 0.2, 20)
    clean = torch.from_numpy(faces[50:].transpose(0, 3, 1, 2).astype(np.float32))
    torch.manual_seed(0)
    noisy = clean + 255 * 0.2 * torch.randn_like(clean)
    with torch.inference_mode():
        found = filter_(noisy)
    error = (found - clean).pow(2).mean()
    assert error < 0.2 * (noisy - clean).pow(2).mean()
    mean = torch.from_numpy(faces[:50].mean(0).transpose(2, 0, 1)).float()
    assert error < (mean - clean).pow(2).mean()


def test_a_recogniser_behind_a_denoiser(world: Path, tmp_path: Path) -> None:
    line = ["--teacher", f"t={world / 'target.pt'}", "--faces", str(world / "faces.parquet")]
    done = CliRunner().invoke(
        command.main, [*line, "--noise", "0.3", "--out", str(tmp_path / "robust")]
    )
    assert done.exit_code == 0, done.output
    card = SurrogateCard.model_validate_json((tmp_path / "robust" / CARD).read_text())
    assert (card.kind, card.queries, card.void_as_black_box) == ("denoised", 0, False)
    enrolment = Recognizer(RecognizerSpec("e", str(tmp_path / "robust" / ENROLMENT)))
    faces = sample.faces(4, seed=7)
    noisy = Recognizer(RecognizerSpec("s", str(tmp_path / "robust" / SCRIPT))).embed(faces)
    assert np.trace(enrolment.embed(faces) @ noisy.T) > 2  # both are of one space
    refuse_marked(RecognizerSpec("s", str(tmp_path / "robust" / ONNX)), "it is a local model's")


def test_a_learned_denoiser_begins_at_the_filter_and_gets_better() -> None:
    faces = sample.faces(60, seed=4)
    torch.manual_seed(0)
    cleaner = Cleaner(wiener(faces, 0.2, 15))
    clean = torch.from_numpy(faces[:16].transpose(0, 3, 1, 2).astype(np.float32))
    noisy = clean + 255 * 0.2 * torch.randn_like(clean)
    torch.testing.assert_close(cleaner(noisy), cleaner.filter(noisy))
    optimizer = torch.optim.Adam(cleaner.parameters(), 3e-4)
    losses = []
    for share in [0.0] * 25 + [0.6]:
        loss = cleaning_loss(cleaner, Corners(0), clean, noisy, Corners(0)(clean), share)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[24] < 0.98 * losses[0]
    assert losses[25] > losses[24]  # from then on templates count, too


def test_a_recogniser_behind_a_learned_denoiser(world: Path, tmp_path: Path) -> None:
    line = ["--teacher", f"t={world / 'target.pt'}", "--faces", str(world / "faces.parquet")]
    line += ["--student", "denoiser", "--minutes", "0.02", "--out", str(tmp_path / "robust")]
    done = CliRunner().invoke(command.main, [*line, "--noise", "0.3"])
    assert done.exit_code == 0, done.output
    card = SurrogateCard.model_validate_json((tmp_path / "robust" / CARD).read_text())
    assert (card.kind, card.queries) == ("denoised by a network", 0)
    done = CliRunner().invoke(command.main, line)
    assert done.exit_code == 2 and "needs --teacher and --noise" in done.output


def test_serve_fr_refuses_in_one_line(world: Path, tmp_path: Path) -> None:
    model = f"t={world / 'target.pt'}"
    (tmp_path / "token").write_text("two words")
    (tmp_path / "token").chmod(0o600)
    for line, words in (
        (["--listen", "8113"], "HOST:PORT"),
        (["--listen", "0.0.0.0:0"], "--anywhere"),
        (["--token-file", str(tmp_path / "token")], "one word"),
    ):
        done = CliRunner().invoke(serve_fr.main, [model, *line])
        assert done.exit_code == 2 and words in done.output
