"""``report.html``: what was done, whether it holds, what remains; one file, no network, no script.

The plots are SVG inside the page, each with a title for every bar and a table beneath. Pictures of
faces are of the embedded sample only, which is drawn by code.
"""

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ppfr_ops import sample
from ppfr_ops.contracts.certificates import Certification
from ppfr_ops.contracts.evaluation import Evaluation
from ppfr_ops.contracts.manifest import Check, Method
from ppfr_ops.contracts.metrics import METRICS
from ppfr_ops.contracts.policy import Bound, Policy
from ppfr_ops.draws import system_draws
from ppfr_ops.imaging.codec import Encoding
from ppfr_ops.methods.registry import create, methods, shown_to_given
from ppfr_ops.release.certificates import in_words
from ppfr_ops.release.documents.cards import Publication, columns, linkage_in_words, rendered
from ppfr_ops.release.documents.modes import mode_of
from ppfr_ops.release.documents.required import requirements, verdict
from ppfr_ops.release.figures import QUARANTINE, Release, by_reason, figure
from ppfr_ops.release.findings import Finding

WORST = 10
"""Records that are named."""

_COLOURS = {"bar": "#2b6cb0", "bound": "#b00020", "alt": "#b7791f"}


@dataclass(frozen=True)
class Plot:
    """A drawing and the figures behind it."""

    title: str
    alt: str
    svg: Markup
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def render(
    release: Release,
    publication: Publication,
    policy: Policy,
    checks: list[Check],
    findings: list[Finding],
    evaluation: Evaluation | None = None,
    signature: str = "not checked",
    load_method: str | None = None,
    certified: Sequence[Certification] = (),
) -> str:
    """The page.

    Args:
        certified: what ``ppfr certify`` found.
        findings: of ``verify``.
        signature: what was found about it, in words.
        load_method: ``module:Class`` that may be imported, if the manifest names it.
    """
    required = requirements(findings, checks, release)
    passed, why = verdict(required, checks)
    mode = mode_of(release.manifest)
    plots = [_histogram(name, release.values(name), policy) for name in release.measured]
    if evaluation is not None and evaluation.recovery is not None:
        plots.append(_recovery(evaluation))
    return rendered(
        "report.html.j2",
        publication=publication,
        release=release,
        manifest=release.manifest,
        passed=passed,
        why=why,
        required=required,
        mode=mode,
        findings=findings,
        plots=plots,
        utility=_utility(release, evaluation),
        worst=_worst(release),
        reasons=[
            (code, text, "held back" if code in QUARANTINE else "failed", count)
            for (code, text), count in by_reason(release).most_common()
        ],
        columns=columns(release),
        linkage=linkage_in_words(evaluation, release.manifest),
        evaluation=evaluation,
        same_method=evaluation is not None
        and evaluation.method_digest == release.manifest.method.digest,
        pairs=_sample_pairs(release.manifest.method, release.manifest.options, load_method),
        signature=signature,
        certified=[in_words(found) for found in certified],
        promise=_promise(release),
    )


def _utility(release: Release, evaluation: Evaluation | None) -> list[dict[str, Any]]:
    """One row an FR model: recognition by the licensed user, re-identification by others."""
    rows = []
    names = [name.removeprefix("id_cosine_") for name in release.measured if "id_cosine_" in name]
    judged = evaluation.utility or {} if evaluation is not None else {}
    for name in [*names, *(name for name in judged if name not in names)]:
        found = judged.get(name)
        linked = (evaluation.linkage or {}).get(name) if evaluation is not None else None
        rows.append(
            {
                "model": name,
                "role": found.role.replace("_", " ") if found else "",
                "cosine": figure(f"id_cosine_{name}_mean", release, None),
                "match": figure(f"id_match_{name}", release, evaluation),
                "accuracy": found.protected_protected.accuracy if found else None,
                "original": found.original.accuracy if found else None,
                "rank1": linked.rank1 if linked else None,
                "taught": linked.student.rank1 if linked and linked.student else None,
                "chance": linked.chance if linked else None,
            }
        )
    return rows


def _promise(release: Release) -> list[tuple[str, str]]:
    """What is promised by differential privacy, and beside it what an audit found; empty: nothing
    is promised."""
    if not release.manifest.method.private:
        return []
    told, found = release.manifest.method.figures, release.audited
    rows = []
    if told["claimed_epsilon"] is not None:
        rows.append(("claimed epsilon", f"{told['claimed_epsilon']}: does not hold"))
    rows.append(("epsilon, by the proof", str(told["epsilon"])))
    names = ["delta", "privacy_unit", "adjacency", "mechanism"]
    if told["clip_radius"]:  # else bins of looks are noised, which pictures show only about
        names.append("clip_radius")
        audit = (
            "not audited: ppfr audit-privacy OUTPUT"
            if found is None
            else f"{found.epsilon_at_least:.3f} with confidence {found.confidence:g}: worst-case "
            f"neighbours, {found.trials:,} pictures of each, {found.hits:,} hits and "
            f"{found.false_alarms:,} false alarms of {found.counted:,} each"
            + ("; ABOVE WHAT THE PROOF ALLOWS" if found.broken else "")
        )
        rows.append(("epsilon, at least (audit)", audit))
    rows += [(name.replace("_", " "), str(told[name])) for name in names]
    kept = [str(name) for name in release.manifest.options.get("keep_columns", [])]
    scope = f"{told['scope']}" + (f": {', '.join(kept)}" if kept else "")
    return [*rows, ("is about", scope)]


def _worst(release: Release) -> tuple[str, list[tuple[str, float]]] | None:
    """The metric and the records with the highest values of it."""
    if not len(release.values("disclosure")):
        return None
    ids = np.array(release.metrics["record_id"].to_pylist())
    shown = release.metrics["disclosure"].to_numpy().astype(np.float64)
    order = np.argsort(-np.nan_to_num(shown, nan=-1))[:WORST]
    return "disclosure", [(str(ids[i]), float(shown[i])) for i in order]


# -- drawings -------------------------------------------------------------------------------


def _drawing(figure_: Figure, salt: str, titles: Mapping[str, str]) -> Markup:
    """SVG to put into a page: text as text, a title for each named bar, no date, no tool."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure_.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for name, title in titles.items():
        svg = svg.replace(
            f'<g id="{name}">', f'<g id="{salt}-{name}"><title>{Markup.escape(title)}</title>'
        )
    # Matplotlib numbers its groups from 1 in every drawing; ids have to be unique in the page.
    svg = re.sub(r'id="([a-z][\w.]*_\d+)"', rf'id="{salt}-\1"', svg)
    svg = re.sub(r'(width|height)="[\d.]+pt" ?', "", svg, count=2)
    return Markup(svg)


def _axes(xlabel: str, ylabel: str) -> tuple[Figure, Any]:
    drawing = Figure(figsize=(5, 2.7), layout="constrained")
    axis = drawing.subplots()
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    return drawing, axis


def _legend(axis: Any) -> None:
    """Above the axes, where it hides nothing."""
    axis.legend(
        fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0
    )


def _histogram(name: str, values: NDArray[np.float64], policy: Policy) -> Plot:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        low, high = low - 0.01, high + 0.01
    counts, edges = np.histogram(values, bins=30, range=(low, high))
    label = f"{name} (dB)" if name == "psnr" else name
    drawing, axis = _axes(label, "records")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    bars = axis.bar(edges[:-1], counts, np.diff(edges), align="edge", color=_COLOURS["bar"])
    titles = {}
    for index, bar in enumerate(bars):
        bar.set_gid(f"bar{index}")
        titles[f"bar{index}"] = (
            f"{edges[index]:.3f} to {edges[index + 1]:.3f}: {counts[index]} records"
        )
    bounds: dict[str, Bound] = {}
    if name in policy.record:
        bounds["every record"] = policy.record[name]
    bounds |= {
        figure_.removeprefix(f"{name}_"): bound
        for figure_, bound in policy.dataset.items()
        if figure_.startswith(f"{name}_")
    }
    styles = ("-", "--", ":", "-.")
    for index, (kind, bound) in enumerate(bounds.items()):
        axis.axvline(
            bound.value,
            color=_COLOURS["bound"] if not index else _COLOURS["alt"],
            linestyle=styles[index % len(styles)],
            label=f"{kind} {bound}",
        )
    if bounds:
        _legend(axis)
    points = {f"{p}th percentile": float(np.percentile(values, p)) for p in (5, 50, 95, 99)}
    rows = [("records", f"{len(values):,}"), ("mean", f"{values.mean():.4f}")]
    rows += [("lowest", f"{values.min():.4f}")]
    rows += [(text, f"{value:.4f}") for text, value in points.items()]
    rows += [("highest", f"{values.max():.4f}")]
    rows += [(f"required of {kind}", str(bound)) for kind, bound in bounds.items()]
    meaning = METRICS[name].meaning if name in METRICS else ""
    if not meaning and name.startswith("id_cosine_"):
        model = name.removeprefix("id_cosine_")
        meaning = f"cosine of the {model} templates of original and published picture"
    return Plot(
        title=f"{name}: {meaning}" if meaning else name,
        alt=f"Histogram of {name} over {len(values)} records, mean {values.mean():.3f}, "
        f"from {values.min():.3f} to {values.max():.3f}",
        svg=_drawing(drawing, f"h-{name.replace('_', '-')}", titles),
        head=("figure", "value"),
        rows=rows,
    )


def _recovery(evaluation: Evaluation) -> Plot:
    recovery = evaluation.recovery
    assert recovery is not None
    attackers = recovery.attackers
    drawing, axis = _axes("SSIM of what came back to the original", "")
    names = list(attackers)
    bars = axis.barh(names, [attackers[n].rec_ssim for n in names], 0.5, color=_COLOURS["bar"])
    titles = {}
    for index, (bar, name) in enumerate(zip(bars, names, strict=True)):
        bar.set_gid(f"bar{index}")
        titles[f"bar{index}"] = f"{name}: {attackers[name].rec_ssim:.3f}"
    axis.set_ylabel("attacker")
    axis.axvline(recovery.floor_ssim, color=_COLOURS["bound"], label="floor: the mean face")
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.8, len(names) - 0.2)
    _legend(axis)
    return Plot(
        title="recovery: what a network trained to rebuild faces gets back",
        alt="Bars: SSIM of recovered faces by attacker, "
        + ", ".join(f"{n} {attackers[n].rec_ssim:.3f}" for n in names)
        + f"; floor {recovery.floor_ssim:.3f}",
        svg=_drawing(drawing, "recovery", titles),
        head=("attacker", "SSIM", "PSNR, dB", "gain", "steps", "flattened"),
        rows=[
            (
                name,
                f"{found.rec_ssim:.3f}",
                f"{found.rec_psnr:.1f}",
                f"{found.recovery_gain:.3f}",
                f"{found.steps:,}",
                "yes" if found.flattened else "no: more steps get more back",
            )
            for name, found in attackers.items()
        ]
        + [
            (
                "floor: the mean face",
                f"{recovery.floor_ssim:.3f}",
                f"{recovery.floor_psnr:.1f}",
                "0",
                "",
                "",
            )
        ],
    )


def _sample_pairs(
    method: Method, options: Mapping[str, Any], load_method: str | None
) -> list[tuple[str, str]]:
    """Data URLs of drawn faces before and after; none if the method at hand is another than the
    one that made the release. What the manifest names is imported only if the owner named it."""
    if method.name not in methods() and method.name != load_method:
        return []
    try:
        anonymizer = create(method.name, shown_to_given(method.name, method.options))
        if anonymizer.digest() != method.digest:
            return []
        secrets = {role: os.urandom(32) for role in anonymizer.needed_secrets()}
        anonymizer = anonymizer.with_secrets(secrets)
        faces = sample.faces(4, identities=4)
        ids = [f"sample-{index}" for index in range(len(faces))]
        after = anonymizer(
            faces, system_draws(ids, anonymizer.draw_size, 0), anonymizer.context_of(faces, ids)
        )
        encoding = Encoding(options.get("output_format", "jpeg"), options.get("quality", 95))
        return [
            (_data_url(Encoding(), before), _data_url(encoding, published))
            for before, published in zip(faces, after, strict=True)
        ]
    except Exception:
        # Another's method may be missing or broken here; the report does without its pictures.
        return []


def _data_url(encoding: Encoding, picture: NDArray[np.uint8]) -> str:
    data = base64.b64encode(encoding.encode(picture)).decode()
    return f"data:image/{encoding.format};base64,{data}"
