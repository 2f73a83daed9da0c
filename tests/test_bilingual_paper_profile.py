"""Profile `paper` of bilingual_score, as configured, end to end against a stand-in hub.

The hub serves a tiny Gemma-2 of full width (gated, as the real one), a GemmaScope file of the
published sizes in its published place, OPUS Books' parquet layout with other texts, and the
author's data set of activations, which a dense NumPy pass makes from the same model.
"""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from tokenizers import Tokenizer

import tiny_models
from langsae.claims import load_published
from langsae.verdicts import OTHER_MODEL
from langsae.verify import verify
from standin_hub import TOKEN, StandinHub
from working_copy import ROOT, WorkingCopy

STUDY = "bilingual_score"
ROWS, FEATURES, WIDTH = 24, 16_384, 2304
STAGES = [
    ("langsae.stages.corpus", "opus_books"),
    ("langsae.stages.model", "gemma"),
    ("langsae.stages.model", "no_model"),
    ("langsae.stages.saes", "gemma_scope"),
    ("langsae.stages.saes", "no_saes"),
    *((f"replications.{STUDY}.{stage}", run)
      for stage in ("collect", "rank", "trace") for run in ("gemma", "gemma_activations")),
    (f"replications.{STUDY}.measure",),
    (f"replications.{STUDY}.figures", "paper"),
]  # fmt: skip
NEAR = 1e-4  # a float32 pre-activation this near its threshold may lie on either side


def pairs() -> list[tuple[str, str]]:
    """Short real texts, Spanish and English, of different lengths."""
    path = ROOT / "src" / "langsae" / "data" / "udhr.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][1 : ROWS + 1]
    lengths = 14 + np.arange(ROWS) % 7
    return [
        (row["es"][:size].strip(), row["en"][: size - 3].strip())
        for row, size in zip(rows, lengths, strict=True)
    ]


class Dense:
    """The study's definitions with whole arrays: every activation of every position."""

    def __init__(self, folder: Path, texts: list[tuple[str, str]]) -> None:
        files = tiny_models.gemma2()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        self.tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        order = np.random.default_rng(42).permutation(len(texts))[:500]
        self.order, self.texts = order, [texts[at] for at in order]
        self.lengths = [[len(self.ids(text)) for text in pair] for pair in self.texts]
        self.streams = self._streams(folder)
        counted = np.concatenate([s[:, 1:].reshape(-1, WIDTH) for s in self.streams])
        self.mean = counted.mean(0)
        draw = np.random.default_rng(7)
        watched = [10194, 288, 7457, 12832, 3767, 3052, 5826, 8606, 6826]  # 6225 stays dead
        others = np.setdiff1d(draw.permutation(FEATURES), [*watched, 6225])
        self.features = draw.permutation([*watched, *others[: 2 * WIDTH - len(watched)]])
        parts = np.abs(counted - self.mean)
        self.threshold = np.quantile(parts, draw.uniform(0.5, 0.999, 2 * WIDTH))
        self.threshold = self.threshold.astype(np.float32)

    def ids(self, text: str) -> list[int]:
        return [2, *self.tokenizer.encode(text, add_special_tokens=False).ids]

    def padded(self, row: int) -> np.ndarray:
        """Token ids [2, T] of one pair, the shorter filled up with token 0."""
        texts = [self.ids(text) for text in self.texts[row]]
        longest = max(map(len, texts))
        return np.array([ids + [0] * (longest - len(ids)) for ids in texts])

    def _streams(self, folder: Path) -> list[np.ndarray]:
        """The residual stream after block 20 of each pair, float64 [2, T, d]."""
        from transformers import AutoModelForCausalLM

        network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        taken = []
        block = network.model.layers[20]
        block.register_forward_hook(
            lambda module, args, out: taken.append(out[0] if isinstance(out, tuple) else out)
        )
        with torch.inference_mode():
            for row in range(len(self.texts)):
                network.model(torch.from_numpy(self.padded(row)), use_cache=False)
        return [stream.double().numpy() for stream in taken]

    def activations(self, row: int) -> np.ndarray:
        """JumpReLU codes float64 [2, T, F] of one pair."""
        x = self.streams[row] - self.mean
        both = np.stack([x, -x], axis=-1).reshape(*x.shape[:2], 2 * WIDTH)
        out = np.zeros((*x.shape[:2], FEATURES))
        out[..., self.features] = np.where(both > self.threshold, both, 0)
        return out

    def certain(self) -> np.ndarray:
        """bool [F]: no pre-activation lies so near its threshold that float32 could decide."""
        sure = np.ones(FEATURES, bool)
        for stream in self.streams:
            x = stream - self.mean
            both = np.stack([x, -x], axis=-1).reshape(-1, 2 * WIDTH)
            sure[self.features] &= (np.abs(both - self.threshold) > NEAR).all(0)
        return sure

    def maxima(self, masked: bool) -> np.ndarray:
        """[2, rows, F], BOS left out; padding too, where `masked`."""
        out = np.zeros((2, len(self.texts), FEATURES))
        for row, lengths in enumerate(self.lengths):
            codes = self.activations(row)
            for language in range(2):
                stop = lengths[language] if masked else codes.shape[1]
                out[language, row] = codes[language, 1:stop].max(0)
        return out

    def data_set(self) -> list[dict]:
        """What the author's notebook pushed to the hub, for these texts."""
        return [
            {
                "id": str(self.order[row]),
                "tokens": self.padded(row),
                "str_tokens": {
                    code: ["<bos>", *(self.tokenizer.decode([t]) for t in self.ids(text)[1:])]
                    for code, text in zip(("es", "en"), self.texts[row], strict=True)
                },
                "sae_features": self.activations(row).astype(np.float32),
            }
            for row in range(len(self.texts))
        ]


def publish(hub: StandinHub, dense: Dense, texts: list[tuple[str, str]], params: dict) -> None:
    hub.add_repo(params["models"]["gemma"]["repo"], tiny_models.gemma2(), gated=True)
    sae = tiny_models.wide_gemma_scope(dense.features, dense.mean, dense.threshold)
    assert sum(map(len, sae.values())) > 3e8  # as published; zeros that are packed look like a bomb
    hub.add_repo("google/gemma-scope-2b-pt-res", sae)
    hub.add_repo("Helsinki-NLP/opus_books", tiny_models.opus_books(texts), "dataset")
    spec = params[STUDY]["runs"]["gemma_activations"]["activations"]
    files = tiny_models.published_activations(dense.data_set())
    hub.add_repo(spec["repo"], files, "dataset", commit=spec["revision"])


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> SimpleNamespace:
    """The whole study, run once in one process."""
    folder = tmp_path_factory.mktemp("paper")
    (folder / "model").mkdir()
    torch.set_num_threads(1)
    dense = Dense(folder / "model", texts := pairs())
    with StandinHub(folder / "hub") as hub:
        copy = WorkingCopy.make(folder / "copy", **hub.environ, OMP_WAIT_POLICY="passive")
        copy.run("langsae", "profile", "paper")
        params = yaml.safe_load((copy.root / "params.yaml").read_text(encoding="utf-8"))
        publish(hub, dense, texts, params)
        closed = copy.modules((".", "langsae.stages.model", "gemma"), check=False)[0]
        copy.environ["HF_TOKEN"] = TOKEN
        copy.modules(*((".", *stage) for stage in STAGES))
    return SimpleNamespace(root=copy.root, dense=dense, closed=closed, params=params)


@pytest.fixture(scope="module")
def evidence(paper) -> dict:
    return json.loads((paper.root / "results" / STUDY / "paper.json").read_text(encoding="utf-8"))


def value(evidence: dict, id: str, variant: str):
    return evidence["measured"][id][variant]["value"]


def saved_maxima(paper, run: str, masked: bool) -> np.ndarray:
    name = "example_maxima_masked" if masked else "example_maxima"
    path = paper.root / "artifacts" / STUDY / "paper" / run / "collected" / f"{name}.safetensors"
    with safe_open(path, "numpy") as file:
        if "dense.0" in file.keys():  # noqa: SIM118
            return file.get_tensor("dense.0")
        counts, features, values = (
            file.get_tensor(f"{k}.0") for k in ("count", "feature", "value")
        )
    out = np.zeros((2 * ROWS, FEATURES), np.float32)
    out[np.repeat(np.arange(2 * ROWS), counts), features] = values
    return out.reshape(2, ROWS, FEATURES)


def test_a_closed_model_is_one_line(paper):
    status, errors = paper.closed
    assert status == 2
    assert errors.strip().startswith(
        "langsae: error: google/gemma-2-2b is gated: accept its licence"
    )
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.parametrize("run", ["gemma", "gemma_activations"])
@pytest.mark.parametrize("masked", [False, True])
def test_maxima_equal_a_dense_pass(paper, run, masked):
    expected, found = paper.dense.maxima(masked), saved_maxima(paper, run, masked)
    sure = paper.dense.certain()
    assert sure.mean() > 0.9
    np.testing.assert_allclose(found[..., sure], expected[..., sure], rtol=1e-3, atol=1e-4)
    assert (expected > 0).any((0, 1)).sum() > 3000


def test_padding_changes_the_maxima(paper):
    assert (paper.dense.maxima(False) != paper.dense.maxima(True)).any()
    assert any(one != other for one, other in paper.dense.lengths)


def test_thresholds_equal_numpys_on_all_positive_values(paper, evidence):
    for group, members in (("global", (0, 1)), ("es", (0,)), ("en", (1,))):
        codes = [
            paper.dense.activations(row)[list(members), 1:].astype(np.float32).ravel()
            for row in range(ROWS)
        ]
        positive = np.concatenate([code[code > 0] for code in codes]).astype(np.float64)
        expected = {"mean": positive.mean()}
        for q in (0.05, 0.25, 0.5, 0.75, 0.95):
            expected[f"q{100 * q:02.0f}"] = np.quantile(positive, q)
        for variant in ("as published", "authors' activations"):
            for part, number in expected.items():
                found = value(evidence, f"threshold/gemma/{group}/{part}", variant)
                assert found == pytest.approx(number, rel=2e-4), (group, part, variant)


def test_curves_count_the_dense_maxima(paper, evidence):
    maxima = paper.dense.maxima(False)
    for part in ("mean", "q05", "q95"):
        threshold = value(evidence, f"threshold/gemma/es/{part}", "as published")
        share = (maxima[0] > threshold).mean(0)
        slack = (np.abs(maxima[0] - threshold) < 10 * NEAR).any(0).sum()
        for name, expected in (("any", (share > 0).sum()), ("half", (share >= 0.5).sum())):
            found = value(evidence, f"curve/gemma/es/{part}/{name}", "as published")
            assert abs(found - expected) <= slack, (part, name)


def test_facts_of_the_texts(paper, evidence):
    dense = paper.dense
    sizes = [dense.padded(row).size for row in range(ROWS)]
    for variant in ("as published", "authors' activations"):
        assert value(evidence, "positions/gemma/all", variant) == sum(sizes)
        assert value(evidence, "positions/gemma/longest", variant) == max(sizes) // 2
    assert value(evidence, "sample/gemma/first", "as published") == str(dense.order[0])
    dead = (dense.maxima(False) == 0).all(1)
    assert value(evidence, "dead/gemma/en", "as published") == dead[1].sum()
    assert value(evidence, "dead/gemma/either", "as published") == dead.any(0).sum()
    assert value(evidence, "alive/gemma/both", "as published") == (~dead).all(0).sum()


def test_the_score_equals_the_definition_on_dense_maxima(paper, evidence):
    m = paper.dense.maxima(False).astype(np.float32).astype(np.float64)
    alive = (m > 0).any(1).all(0)
    parts = []
    for language in m:
        z = 100 * language / language.max()
        e = np.exp(z - z.max(0))
        parts.append(e / e.sum(0))
    mixture = sum(parts) / 2
    J = sum((mixture * np.log(mixture / p)).mean(0) for p in parts) / 2
    df = (m > 0).sum((0, 1))
    idf = np.where(df < 10, 1, 2 * ROWS / np.maximum(df, 1))
    rising = np.sort(J[alive])
    beta = (rising[300] - rising[0]) / (idf[alive].max() - idf[alive].min())
    score = np.sort((J + beta * idf)[alive])
    for variant in ("as published", "authors' activations"):
        assert value(evidence, "score/gemma/beta", variant) == pytest.approx(beta, rel=1e-2)
        assert value(evidence, "score/gemma/min", variant) == pytest.approx(score[0], rel=1e-2)
        assert value(evidence, "score/gemma/max", variant) == pytest.approx(score[-1], rel=1e-2)


def test_the_strip_of_the_watched_feature_is_the_dense_one(paper):
    """Token by token, in the texts that the trace stage chose."""
    path = paper.root / "artifacts" / STUDY / "paper" / "gemma" / "traced" / "contexts.csv"
    import pandas as pd

    contexts = pd.read_csv(path)
    strips = contexts[contexts["feature"] == 10194]
    assert len(strips) >= 4
    for strip in strips.itertuples():
        language = ("es", "en").index(strip.language)
        pieces, values = json.loads(strip.pieces), json.loads(strip.activations)
        assert "".join(pieces) == paper.dense.texts[strip.row][language]
        stop = paper.dense.lengths[strip.row][language]
        expected = paper.dense.activations(strip.row)[language, 1:stop, 10194]
        np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4)
    m = paper.dense.maxima(True)[:, :, 10194]
    for language, row in ((0, m[0].argmax()), (1, m[1].argmax())):
        assert row in set(strips["row"]), language


def test_everything_published_is_measured_but_the_authors_runs(evidence):
    published = load_published(ROOT / "replications" / STUDY / "published.yaml")
    keys = {(claim.id, claim.variant) for claim in published.claims}
    found = {(id, variant) for id, values in evidence["measured"].items() for variant in values}
    assert {id.split("/")[0] for id, _ in keys - found} == {"spread"}
    assert found <= keys
    asked = {finding.id for finding in published.findings}
    assert {id for id, models in evidence["findings"].items() if "gemma" in models} == asked
    dead = evidence["measured"]["rank/gemma/6225"]["as published"]
    assert "not alive" in dead["detail"]


def test_every_claim_gets_a_verdict_from_the_rerun(paper):
    assert verify([STUDY], paper.root, acknowledge=True) == 0
    rows = json.loads((paper.root / "results" / "verification.json").read_text(encoding="utf-8"))
    rows = [
        row for row in rows
        if row["study"] == STUDY and not row["id"].startswith("spread")
        and row["variant"] != OTHER_MODEL  # the demo's
    ]  # fmt: skip
    paper_rows = [row for row in rows if row["profile"] == "paper"]
    assert {row["basis"] for row in paper_rows} == {"rerun", "published artefact"}
    assert {row["variant"] for row in paper_rows if row["basis"] == "published artefact"} == {
        "authors' activations"
    }
    assert len(paper_rows) == len(rows)


def test_figures_and_page_are_drawn(paper):
    folder = paper.root / "paper_figures" / STUDY / "paper"
    assert {path.stem for path in folder.glob("*.png")} == {
        "activation_frequency", "scores", "strips", "constructed",
    }  # fmt: skip
    page = (folder / "contexts.html").read_text(encoding="utf-8")
    assert "gemma: feature 10194" in page
    assert "gemma_activations: corrected" in page


def test_the_sae_is_pinned_and_fits(paper):
    index = json.loads((paper.root / "artifacts/saes/gemma_scope/bank.json").read_text())
    (entry,) = index["saes"].values()
    assert entry["place"]["path"] == tiny_models.GEMMA_FOLDER
    assert len(entry["place"]["revision"]) == 40
    assert 0 < entry["probe"]["fvu"] <= 1
