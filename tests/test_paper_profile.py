"""Profile `paper` of flores_exploration, as configured, end to end against a stand-in hub.

The hub serves tiny random GPT-2 and GPT-NeoX models under the commits that conf/paper.yaml pins,
SAEs of the published widths in their published places, and FLORES' parquet layout with other texts.
"""

import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load as read_safetensors
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import tiny_models
from langsae.claims import load_published
from langsae.languages import find
from langsae.verify import verify
from standin_hub import StandinHub
from working_copy import ROOT, WorkingCopy

STUDY = "flores_exploration"
LANGUAGES = ["en", "de", "ru", "is", "es", "pt", "fr", "zh", "ja", "ko", "hi", "ar"]
WIDTH = {"gpt2": 24_576, "pythia": 32_768}
COUNTS_BOS = {"gpt2": False, "pythia": True}
GATED = "meta-llama/Llama-3.2-1B"
STAGES = [
    ("langsae.stages.corpus", "flores"),
    ("langsae.stages.model", "gpt2"),
    ("langsae.stages.model", "pythia"),
    ("langsae.stages.saes", "gpt2_res_jb"),
    ("langsae.stages.saes", "pythia_res_sm"),
    (f"replications.{STUDY}.collect", "gpt2"),
    (f"replications.{STUDY}.collect", "pythia"),
    (f"replications.{STUDY}.measure",),
    (f"replications.{STUDY}.figures", "paper"),
]
# Where a float32 pre-activation this near zero may lie on either side.
NEAR = 2e-5


def sentences() -> dict[str, list[str]]:
    """Three short real texts a language, few enough bytes for a tiny model's context."""
    path = ROOT / "src" / "langsae" / "data" / "udhr.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][1:4]
    return {code: [row[code][:14].strip() for row in rows] for code in LANGUAGES}


def files(hub_texts: dict[str, list[str]]) -> dict[str, dict[str, bytes]]:
    """What each repository holds."""
    fit = tiny_models.fitting_sae_tensors
    return {
        "gpt2": tiny_models.gpt2(),
        "pythia": tiny_models.pythia(),
        "gpt2 saes": tiny_models.gpt2_saes(WIDTH["gpt2"], fit),
        "pythia saes": tiny_models.pythia_saes(WIDTH["pythia"], fit),
        "flores": tiny_models.flores(
            {find(code).flores: lines for code, lines in hub_texts.items()}
        ),
    }


def publish(hub: StandinHub, content: dict[str, dict[str, bytes]], pins: dict) -> None:
    """Every repository in its published place; models under the commits the profile pins."""
    for name in ("gpt2", "pythia"):
        hub.add_repo(pins[name]["repo"], content[name], commit=pins[name]["revision"])
    hub.add_repo("jbloom/GPT2-Small-SAEs-Reformatted", content["gpt2 saes"])
    hub.add_repo("ctigges/pythia-70m-deduped__res-sm_processed", content["pythia saes"])
    hub.add_repo("facebook/flores", {"flores.py": b"# a script\n"}, "dataset")
    hub.add_repo("facebook/flores", content["flores"], "dataset", revision="refs/convert/parquet")
    hub.add_repo(GATED, tiny_models.llama(), gated=True)


def changed(root: Path, name: str, change) -> None:
    """A folder beside the run, whose params.yaml differs by `change` and that has its artifacts."""
    folder = root / name
    (folder / "artifacts").mkdir(parents=True)
    for kind in ("corpora", "models"):
        (folder / "artifacts" / kind).symlink_to(root / "artifacts" / kind)
    params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    change(params)
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def _gated(params):
    params["models"] = {"new": params["models"]["gpt2"] | {"repo": GATED, "revision": "main"}}


def _unknown(params):
    params["models"] = {"new": params["models"]["gpt2"] | {"revision": "0" * 40}}


def _wrong_hook(params):
    params["saes"]["gpt2_res_jb"]["hooks"] = ["resid_post.0"]  # trained at resid_pre.0


FAULTS = {
    "gated": (_gated, ("langsae.stages.model", "new"), f"{GATED} is gated: accept its licence"),
    "unknown": (_unknown, ("langsae.stages.model", "new"), "gpt2: has no revision 0000"),
    "wrong_hook": (_wrong_hook, ("langsae.stages.saes", "gpt2_res_jb"), "blocks.0.hook_resid_pre"),
}


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> SimpleNamespace:
    """The whole profile, run once in one process, and then the faulty variants."""
    folder = tmp_path_factory.mktemp("paper")
    content = files(texts := sentences())
    with StandinHub(folder / "hub") as hub:
        # passive: eight threads, as the profile asks for, do not spin on fewer cores
        copy = WorkingCopy.make(folder / "copy", **hub.environ, OMP_WAIT_POLICY="passive")
        copy.run("git", "rm", "-r", "--quiet", "results", "paper_figures")
        copy.run("langsae", "profile", "paper")
        params = yaml.safe_load((copy.root / "params.yaml").read_text(encoding="utf-8"))
        publish(hub, content, params["models"])
        copy.modules(*((".", *stage) for stage in STAGES))
        for name, (change, _, _) in FAULTS.items():
            changed(copy.root, name, change)
        faults = copy.modules(
            *((name, *stage) for name, (_, stage, _) in FAULTS.items()), check=False
        )
    faults = dict(zip(FAULTS, faults, strict=True))
    return SimpleNamespace(root=copy.root, content=content, texts=texts, faults=faults)


@pytest.fixture(scope="module")
def evidence(paper) -> dict:
    return json.loads((paper.root / "results" / STUDY / "paper.json").read_text(encoding="utf-8"))


def measured(evidence: dict, kind: str, model: str, variant: str) -> dict[str, object]:
    """The measured values below `kind`/`model`/ in one reading, by the rest of their id."""
    prefix = f"{kind}/{model}/"
    return {
        id.removeprefix(prefix): values[variant]["value"]
        for id, values in evidence["measured"].items()
        if id.startswith(prefix)
    }


def token_ids(paper, model: str) -> dict[str, list[list[int]]]:
    """The tokens of every text by the tokenizers library, BOS in front."""
    tokenizer = Tokenizer.from_str(paper.content[model]["tokenizer.json"].decode())
    bos = tokenizer.token_to_id(tiny_models.EOT)
    return {
        code: [[bos, *tokenizer.encode(text, add_special_tokens=False).ids] for text in lines]
        for code, lines in paper.texts.items()
    }


@pytest.mark.parametrize("model", WIDTH)
def test_token_counts_equal_an_independent_count(paper, evidence, model):
    """Pythia's BOS counts, GPT-2's does not: as published."""
    skipped = 0 if COUNTS_BOS[model] else 1
    expected = {
        code: sum(len(ids) - skipped for ids in texts)
        for code, texts in token_ids(paper, model).items()
    }
    assert min(expected.values()) > 20
    assert measured(evidence, "tokens", model, "corrected") == expected
    times = {code: n * WIDTH[model] for code, n in expected.items()}
    assert measured(evidence, "tokens", model, "as published") == times


def dense_pre_activations(paper, model: str, layer: int, tmp_path: Path):
    """(language index, pre-activations [F]) of each counted token: transformers' hidden states less
    their mean, which is the stream of TransformerLens' processed weights, through the ReLU formula.
    """
    from transformers import AutoModelForCausalLM

    for name, data in paper.content[model].items():
        (tmp_path / name).write_bytes(data)
    network = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    # hidden_states[i] enters block i: resid_pre.i of GPT-2, and resid_post.(i - 1) of Pythia
    state, place = (
        (layer, f"blocks.{layer}.hook_resid_pre")
        if model == "gpt2"
        else (layer + 1, f"{layer}-res-sm")
    )
    w = read_safetensors(paper.content[f"{model} saes"][f"{place}/sae_weights.safetensors"])
    W_enc, b_enc, b_dec = (w[key].astype(np.float64) for key in ("W_enc", "b_enc", "b_dec"))
    for language, texts in enumerate(token_ids(paper, model).values()):
        for ids in texts:
            with torch.inference_mode():
                out = network(torch.tensor([ids]), output_hidden_states=True)
            x = out.hidden_states[state][0].double().numpy()
            x = (x - x.mean(-1, keepdims=True))[0 if COUNTS_BOS[model] else 1 :]
            yield language, (x - b_dec) @ W_enc + b_enc


@pytest.mark.parametrize(("model", "layer"), [("gpt2", 5), ("pythia", 2)])
def test_monolingual_counts_equal_a_dense_recomputation(paper, evidence, model, layer, tmp_path):
    active = np.zeros((len(LANGUAGES), WIDTH[model]))
    tokens = np.zeros(len(LANGUAGES))
    certain = np.ones(WIDTH[model], bool)
    for language, pre in dense_pre_activations(paper, model, layer, tmp_path):
        active[language] += (pre > 0).sum(0)
        tokens[language] += len(pre)
        certain &= (np.abs(pre) > NEAR).all(0)
    assert certain.mean() > 0.97
    counts = paper.root / "artifacts" / STUDY / "paper" / model / "feature_counts.safetensors"
    ours = load_file(counts)["active"][layer]
    np.testing.assert_array_equal(ours[:, certain], active[:, certain])
    rate = active / tokens[:, None]
    for variant, weight in (("normalised share", rate), ("raw share", active)):
        live = weight.sum(0) > 0
        share = weight[:, live] / weight[:, live].sum(0)
        expected = dict(zip(LANGUAGES, (share > 0.5).sum(1).tolist(), strict=True))
        found = measured(evidence, "monolingual", model, variant)
        found = {code: found[f"{code}/L{layer}"] for code in LANGUAGES}
        assert sum(expected.values()) > 500
        away = sum(abs(found[code] - expected[code]) for code in LANGUAGES)
        assert away <= (~certain).sum()


def test_everything_published_is_measured(evidence):
    published = load_published(ROOT / "replications" / STUDY / "published.yaml")
    keys = {(claim.id, claim.variant) for claim in published.claims}
    found = {(id, variant) for id, values in evidence["measured"].items() for variant in values}
    assert found == keys
    assert len(found) == 804
    asked = {(finding.id, model) for finding in published.findings for model in finding.subjects}
    answered = {(id, model) for id, models in evidence["findings"].items() for model in models}
    assert asked <= answered


def test_every_claim_gets_a_verdict_from_the_rerun(paper, capsys):
    before = (paper.root / "README.md").read_text(encoding="utf-8")
    assert verify(root=paper.root) == 1  # nobody acknowledged these verdicts
    assert not (paper.root / "results" / "verification.json").exists()
    assert verify(root=paper.root, acknowledge=True) == 0
    assert "no row" in capsys.readouterr().err
    rows = json.loads((paper.root / "results" / "verification.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if row["study"] == STUDY]
    assert {row["verdict"] for row in rows} == {"reproduced", "differs"}
    assert {(row["basis"], row["profile"]) for row in rows} == {("rerun", "paper")}
    tokens = [row for row in rows if row["id"].startswith("tokens/")]
    assert {row["verdict"] for row in tokens} == {"differs"}  # other texts than FLORES'
    assert (paper.root / "README.md").read_text(encoding="utf-8") != before


def test_figures_are_drawn(paper):
    drawn = {path.stem for path in (paper.root / "paper_figures" / STUDY / "paper").glob("*.svg")}
    assert drawn >= {"tokens", "monolingual", "variance", "groups", "shares", "reconstruction"}


def test_saes_fit_and_are_pinned(paper):
    for bank in ("gpt2_res_jb", "pythia_res_sm"):
        index = json.loads((paper.root / "artifacts" / "saes" / bank / "bank.json").read_text())
        for entry in index["saes"].values():
            assert entry["probe"]["fvu"] < 0.05
            assert re.fullmatch("[0-9a-f]{40}", entry["place"]["revision"])


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_and_leaves_nothing(paper, name):
    _, stage, said = FAULTS[name]
    status, errors = paper.faults[name]
    assert status == 2
    assert "Traceback" not in errors
    told = [line for line in errors.splitlines() if line.startswith("langsae: error: ")]
    assert len(told) == 1
    assert said in told[0]
    assert errors.endswith(told[0] + "\n")
    if stage[0] == "langsae.stages.model":
        assert errors == told[0] + "\n"
    kind = paper.root / name / "artifacts" / stage[0].rsplit(".", 1)[1].replace("model", "models")
    left = sorted(path.name for path in kind.iterdir()) if kind.exists() else []
    assert left == (["gpt2", "pythia"] if kind.name == "models" else [])
