"""Does recognition still work? Verification by LFW's protocol, before and after."""

from typing import Any

from ppfr_ops.contracts.evaluation import Unchanged, Utility
from ppfr_ops.lab.evaluate.protocol import pair_scores, threshold_at_far, thresholds, verify
from ppfr_ops.lab.evaluate.run import Run
from ppfr_ops.lab.evaluate.stages.base import stage


@stage("verification of published pictures, per FR model")
def utility(run: Run) -> dict[str, Utility]:
    index, a, b = run.pair_places()
    same = run.pairs.same
    result: dict[str, Utility] = {}
    scores: dict[str, Any] = {"same": same, "fold": run.pairs.folds}
    records: dict[str, Any] = {"face": index}
    for name in run.names:
        before, after = run.embeddings(name, index)
        kinds = {
            "original": pair_scores(before[a], before[b]),
            "protected_protected": pair_scores(after[a], after[b]),
            "protected_original": pair_scores(after[a], before[b]),
        }
        found = {kind: verify(s, same, run.pairs.folds) for kind, s in kinds.items()}
        for kind, values in kinds.items():
            scores[f"{name}_{kind}"] = values
        threshold = threshold_at_far(kinds["original"][~same], 1e-3)
        passed = kinds["protected_protected"] >= threshold
        cosine = pair_scores(before, after)
        records[f"id_cosine_{name}"] = cosine
        records[f"id_match_{name}"] = cosine >= threshold
        result[name] = Utility(
            role=run.role(name),
            **found,
            id_cosine=float(cosine.mean()),
            id_match=float((cosine >= threshold).mean()),
            threshold=threshold,
            unchanged=Unchanged(far=float(passed[~same].mean()), tar=float(passed[same].mean())),
            thresholds=thresholds(kinds["protected_protected"][~same]),
        )
    run.table("scores", scores)
    run.table("identity", records)
    return result
