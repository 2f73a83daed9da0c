"""Every measured value under the id and variant that published.yaml gives it."""

import json

import numpy as np
import pandas as pd

from langsae.evidence import Recorder
from langsae.params import Spec
from replications.bilingual_score import series as published
from replications.bilingual_score.findings import BEST
from replications.bilingual_score.results import RunResults
from replications.bilingual_score.run import DESCRIBED, MASKED, PUBLISHED

CLAIMED = (PUBLISHED, MASKED, DESCRIBED)  # readings of published values; "corrected" is ours
LN2 = float(np.log(2))


class Watched(Spec):
    """What was published of single features of one model.

    ranks: features whose rank was; strip: the feature whose activations were, at these `tokens`:
    textN-LANGUAGE-PIECE, text N the one with the N-th largest English maximum.
    """

    ranks: tuple[int, ...] = ()
    strip: int | None = None
    tokens: tuple[str, ...] = ()


def record(recorder: Recorder, one: RunResults, watched: Watched) -> None:
    """Every value of a run that has maxima and a ranking."""
    variants = {reading: v for reading, v in one.readings.items() if reading in CLAIMED}
    record_frequencies(recorder, one, variants)
    for reading, variant in variants.items():
        ranking = one.ranking[one.ranking["reading"] == reading].set_index("rank")
        record_scores(recorder, one, ranking, reading, variant)
        record_features(recorder, one, ranking, variant, watched.ranks)
    plain = variants[PUBLISHED]
    positions = f"positions/{one.subject}"
    recorder.measure(f"{positions}/all", plain, one.facts["positions"], one.basis)
    recorder.measure(f"{positions}/longest", plain, one.facts["longest"], one.basis)
    if one.basis == "rerun" and one.facts["first"] is not None:
        recorder.measure(f"sample/{one.subject}/first", plain, one.facts["first"], one.basis)
    record_strip(recorder, one, plain, watched)


def record_series(recorder: Recorder, one: RunResults, watched: Watched) -> None:
    """What the author's own series decide."""
    record_curves(recorder, one, {"counted": PUBLISHED})
    ranking = one.ranking.set_index("rank")
    record_scores(recorder, one, ranking, PUBLISHED, PUBLISHED)
    recorder.measure(f"alive/{one.subject}/both", PUBLISHED, len(ranking), one.basis)
    for feature in watched.ranks:
        score = ranking["score"][one.series["ranks"][str(feature)]]
        recorder.measure(f"rank-score/{one.subject}/{feature}", PUBLISHED, score, one.basis)
    for part, value in published.spread(one.series).items():
        recorder.measure(f"spread/{one.subject}/{part}", PUBLISHED, value, one.basis)
    record_strip(recorder, one, PUBLISHED, watched)


def record_frequencies(recorder: Recorder, one: RunResults, variants: dict[str, str]) -> None:
    """Thresholds, curves, dead and alive features."""
    paddings = {"counted": variants[PUBLISHED]}
    if MASKED in variants:
        paddings["masked"] = variants[MASKED]
    for row in one.thresholds[one.thresholds["padding"].isin(paddings)].itertuples():
        id = f"threshold/{one.subject}/{row.group}/{short(row.threshold)}"
        recorder.measure(id, paddings[row.padding], row.value, one.basis)
    record_curves(recorder, one, paddings)
    for reading in (PUBLISHED, MASKED):
        if reading in variants:
            facts, variant = one.summary[reading], variants[reading]
            subject, basis = one.subject, one.basis
            recorder.measure(f"alive/{subject}/both", variant, facts["alive"], basis)
            recorder.measure(f"dead/{subject}/either", variant, facts["dead_either"], basis)
            if "en" in facts["dead"]:
                recorder.measure(f"dead/{subject}/en", variant, facts["dead"]["en"], basis)


def record_curves(recorder: Recorder, one: RunResults, paddings: dict[str, str]) -> None:
    """Summaries of the activation-frequency curves."""
    for row in one.summaries[one.summaries["padding"].isin(paddings)].to_dict("records"):
        for part in ("any", "all", "half", "tenth", "mean"):
            id = f"curve/{one.subject}/{row['group']}/{short(row['threshold'])}/{part}"
            recorder.measure(id, paddings[row["padding"]], row[part], one.basis)


def record_scores(
    recorder: Recorder, one: RunResults, ranking: pd.DataFrame, reading: str, variant: str
) -> None:
    """The best scores, range and constants of one reading; ranking is indexed by rank."""
    scores = ranking["score"]
    for rank in range(min(BEST, len(scores))):
        recorder.measure(f"best-score/{one.subject}/{rank}", variant, scores[rank], one.basis)
    # the published score is a mean over the rows, the described one a sum
    nats = scores if reading == DESCRIBED else scores * one.rows
    values = {
        "min": scores.min(),
        "max": scores.max(),
        "nats": nats.max(),
        "above-ln2": int((nats > LN2).sum()),
    }
    if one.series:  # the smallest score is the weight and 1e-17: its float32 is the weight
        weight = float(np.float32(scores.min()))
        values |= {"beta": weight, "j300": 99 * weight}
    else:
        values |= {"beta": one.summary[reading]["beta"], "j300": one.summary[reading]["j"]}
    for part, value in values.items():
        recorder.measure(f"score/{one.subject}/{part}", variant, value, one.basis)


def record_features(
    recorder: Recorder, one: RunResults, ranking: pd.DataFrame, variant: str, watched: tuple
) -> None:
    """Which features lead and trail, and where the watched ones stand."""
    features, subject, basis = ranking["feature"].astype(int), one.subject, one.basis
    for rank in range(min(BEST, len(features))):
        recorder.measure(f"best-feature/{subject}/{rank}", variant, str(features[rank]), basis)
    worst = [str(feature) for feature in features.iloc[-3:]]
    recorder.measure(f"worst/{subject}/three", variant, worst, basis)
    places = {feature: rank for rank, feature in features.items()}
    for feature in watched:
        rank = places.get(feature, len(features))
        detail = None if feature in places else "not alive: behind all live ones"
        score = ranking["score"].iloc[min(rank, len(features) - 1)]
        recorder.measure(f"rank/{subject}/{feature}", variant, rank, basis, detail)
        recorder.measure(f"rank-score/{subject}/{feature}", variant, score, basis, detail)


def record_strip(recorder: Recorder, one: RunResults, variant: str, watched: Watched) -> None:
    """The published tokens of one feature; other active tokens of these texts are counted."""
    if watched.strip is None:
        return
    found = _strip(one.contexts[one.contexts["feature"] == watched.strip])
    id = f"/{one.subject}/{watched.strip}"
    for token in watched.tokens:
        recorder.measure(f"activation{id}/{token}", variant, found.pop(token, 0.0), one.basis)
    texts = {token.split("-")[0] for token in watched.tokens}
    others = sum(token.split("-")[0] in texts for token in found)
    recorder.measure(f"activation-elsewhere{id.rsplit('/', 1)[0]}/{watched.strip}", variant, others,
                     one.basis)  # fmt: skip


def _strip(contexts: pd.DataFrame) -> dict[str, float]:
    """Active tokens of one feature as textN-LANGUAGE-PIECE → activation."""
    texts = {
        (text.row, text.language): (json.loads(text.pieces), json.loads(text.activations))
        for text in contexts.itertuples()
    }
    peaks = {row: max(values) for (row, code), (_, values) in texts.items() if code == "en"}
    order = sorted(peaks, key=lambda row: (-peaks[row], row))
    return {
        f"text{order.index(row)}-{code}-{piece.strip()}": value
        for (row, code), (pieces, values) in texts.items()
        for piece, value in zip(pieces, values, strict=True)
        if value > 0
    }


def short(threshold: str) -> str:
    """q_0.05 as q05, q_0.5 as q50."""
    return threshold if threshold == "mean" else f"q{100 * float(threshold[2:]):02.0f}"
