"""Profile `paper` of sae_lape end to end against a stand-in hub.

The hub serves a tiny random Llama of 16 layers under the commit that conf/paper.yaml pins, an SAE
for each of its MLP outputs, and XNLI, PAWS-X, FLORES+ and WiLI in their own layouts with other
texts; FLORES+ and the model are gated. Only how much is done is less than configured.
"""

import gzip
import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
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
from openai_server import KEY, OpenAIServer
from standin_hub import TOKEN, StandinHub
from working_copy import ROOT, WorkingCopy

STUDY, RUN = "sae_lape", "llama"
LAYERS, LATENTS, K = 16, 256, 24
CODES = ["bg", "zh", "en", "fr", "de", "hi", "it", "ja", "ko", "pt", "ru", "es", "th", "tr", "vi"]
XNLI = ["bg", "en", "fr", "de", "hi", "ru", "es", "th", "tr", "vi"]
PAWS_X = ["zh", "en", "fr", "de", "ja", "ko", "es"]
MODEL, SAES = "meta-llama/Llama-3.2-1B", "EleutherAI/sae-Llama-3.2-1B-131k"
FLORES = "openlanguagedata/flores_plus"
CORPORA = ("lape", "lape_similarity", "wili", "flores_plus_devtest")
STAGES = [
    *(("langsae.stages.corpus", name) for name in CORPORA),
    ("langsae.stages.model", RUN),
    ("langsae.stages.saes", "llama_mlp"),
    *(
        (f"replications.{STUDY}.{stage}", RUN)
        for stage in ("collect", "identify", "compare", "classify", "perplexity", "generate",
                      "active", "interpret")
    ),
    (f"replications.{STUDY}.measure",),
]  # fmt: skip
# Half a minute's compilation by UMAP, and half of drawing.
SLOW = [
    (f"replications.{STUDY}.directions", RUN),
    (f"replications.{STUDY}.measure",),
    (f"replications.{STUDY}.figures", "paper"),
]
ROWS = {"xnli": 4, "paws-x": 4, "dev": 5, "devtest": 2, "wili": 3}
EXCERPTS = 4  # in one question: half of a feature's
SIGNS = "#$%&*+=@^_|~<>}"
SIGN_LAYERS, PARTS = 3, (0.2, 0.35, 0.5)


def load_tokenizer(model: dict[str, bytes]) -> Tokenizer:
    return Tokenizer.from_str(model["tokenizer.json"].decode())


def load_network(model: dict[str, bytes], folder):
    """The model as transformers itself loads it."""
    from transformers import AutoModelForCausalLM

    for name, data in model.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def texts() -> dict[str, list[str]]:
    """Short real texts by language, all different: starts of the declaration's articles.

    A random model knows no languages, so between letters stands a sign of the language.
    """
    path = ROOT / "src" / "langsae" / "data" / "udhr.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][1:]
    return {
        code: [sign.join(row[code][:10]) for row in rows]
        for code, sign in zip(CODES, SIGNS, strict=True)
    }


def published_texts() -> SimpleNamespace:
    """Which of the texts each data set has, by language."""
    left = {code: iter(lines) for code, lines in texts().items()}

    def take(code: str, source: str) -> list[str]:
        return [next(left[code]) for _ in range(ROWS[source])]

    return SimpleNamespace(
        xnli={c: list(zip(take(c, "xnli"), take(c, "xnli"), strict=True)) for c in XNLI},
        paws_x={code: take(code, "paws-x") for code in PAWS_X},
        dev={code: take(code, "dev") for code in CODES},
        devtest={code: take(code, "devtest") for code in CODES},
        wili={code: take(code, "wili") for code in CODES},
    )


def flores_code(code: str) -> str:
    return "cmn_Hans" if code == "zh" else find(code).flores


def with_sign_features(network, tokenizer: Tokenizer, lines: dict[str, list[str]]):
    """Tensors of SAEs that fit, whose last latents in the first layers see one language's sign.

    For each language a linear discriminant of its sign's positions from all others, with a
    threshold that a part of these positions exceed. The values are large, so they are among the
    k largest, and the decoder rows small, so they do not disturb the sum.
    """
    outputs, sign = [], []
    for place, (code, mark) in enumerate(zip(CODES, SIGNS, strict=True)):
        for line in lines[code]:
            ids = tokenizer.encode(line).ids
            outputs.append(mlp_activations(network, ids)[0].astype(np.float64))
            sign += [place if id == tokenizer.token_to_id(mark) else -1 for id in ids]
    outputs, sign = np.concatenate(outputs, axis=1), np.array(sign)

    def tensors(seed: int, d_sae: int) -> dict[str, np.ndarray]:
        fitting = tiny_models.fitting_sae_tensors(seed, d_sae)
        x = outputs[seed - 300]  # the first of tiny_models' layers
        if seed - 300 >= SIGN_LAYERS:
            return fitting
        means = [x[sign == place].mean(0) for place in range(-1, len(CODES))]
        spread = np.cov((x - np.array(means)[sign + 1]).T) + 1e-9 * np.eye(x.shape[1])
        latent = d_sae - len(CODES) * len(PARTS)
        for place in range(len(CODES)):
            way = np.linalg.solve(spread, means[place + 1] - x[sign != place].mean(0))
            way *= 20 / (x @ way).std()
            for part in PARTS:
                bar = np.quantile((x @ way)[sign == place], part)
                fitting["W_enc"][:, latent] = way
                fitting["b_enc"][latent] = way @ fitting["b_dec"] - bar
                latent += 1
        return fitting

    return tensors


def mlp_activations(network, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """[layer, position, width]: outputs of a text's MLPs, and neurons (act_fn of the gate)."""
    taken, handles = ([], []), []
    for layer in network.model.layers:
        for module, store in zip((layer.mlp, layer.mlp.act_fn), taken, strict=True):
            keep = module.register_forward_hook(lambda _, __, out, at=store: at.append(out[0]))
            handles.append(keep)
    with torch.inference_mode():
        network(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    return tuple(torch.stack(store).numpy() for store in taken)


def publish(hub: StandinHub, data: SimpleNamespace, params: dict, folder) -> dict[str, dict]:
    """Every repository in its place, under the commits that the profile pins."""
    model = tiny_models.llama(LAYERS)
    tensors = with_sign_features(
        load_network(model, folder), load_tokenizer(model), {c: data.dev[c] for c in CODES}
    )
    content = {
        "model": model,
        "saes": tiny_models.sparsify_saes(LAYERS, LATENTS, K, tensors),
    }
    # in the order of the class names, which is not that of the codes, and with other languages
    labels = ["cdo", *sorted(find(code).iso639_3 for code in CODES), "zza"]
    wili = [(text, find(code).iso639_3) for row in range(ROWS["wili"])
            for code, lines in data.wili.items() for text in (lines[row],)]  # fmt: skip
    flores = {
        path: file
        for split, lines in (("dev", data.dev), ("devtest", data.devtest))
        for path, file in tiny_models.flores_plus(
            split, {flores_code(code): lines[code] for code in CODES}
        ).items()
    }
    parts = {part["repo"]: part["revision"] for part in params["corpora"]["lape"]["parts"]}
    hub.add_repo(MODEL, content["model"], commit=params["models"][RUN]["revision"], gated=True)
    hub.add_repo(SAES, content["saes"])
    for repo, files, gated in (
        ("facebook/xnli", tiny_models.xnli(data.xnli), False),
        ("google-research-datasets/paws-x", tiny_models.paws_x(data.paws_x), False),
        (FLORES, flores, True),
    ):
        hub.add_repo(repo, files, "dataset", commit=parts[repo], gated=gated)
    noise = [("Une langue de plus", "zza"), ("Noch eine", "cdo")]
    hub.add_repo("MartinThoma/wili_2018", tiny_models.wili(noise + wili, labels), "dataset")
    return content


def lessen(params: dict, explainer: str) -> None:
    """As configured, but with fewer texts to write and to explain; a local server explains."""
    study = params[STUDY]
    params["compute"]["threads"] = 2
    study["identify"]["neuron_share"] = 0.1
    study["generate"] |= {"seeds": 1, "new_tokens": 2}
    contexts = {"width": 8, "chunk": 32, "shown": 3, "active": 4, "inactive": 4, "quantiles": 2}
    asking = {"excerpts": EXCERPTS}
    study["interpret"] |= {
        "per_language": 1, "contexts": contexts | {"least": 6}, "asking": asking,
    }  # fmt: skip
    study["interpret"]["explainer"]["base_url"] = explainer


def answer(messages: list[dict]) -> str:
    """An explainer that says the same of every feature, and judges excerpts by a coin."""
    if "[EXPLANATION]" in str(messages):
        return "[EXPLANATION]: letters"
    coins = hashlib.sha256(str(messages).encode()).digest()[:EXCERPTS]
    return str([coin & 1 for coin in coins])


_TEXTS = (f"datasets/{FLORES}", ("langsae.stages.corpus", "flores_plus_devtest"))
# by token: (page of the licence, stage that needs it). Without one the hub answers 401, and 403 to
# one that has no licence.
FAULTS = {
    "": ((MODEL, ("langsae.stages.model", RUN)), _TEXTS,
         (_TEXTS[0], ("langsae.stages.corpus", "lape"))),
    "of-a-stranger": (_TEXTS,),
}  # fmt: skip


@pytest.fixture(scope="module")
def paper(tmp_path_factory) -> SimpleNamespace:
    """The whole profile, run once: without a token, with one that opens nothing, and with one."""
    folder = tmp_path_factory.mktemp("paper")
    data = published_texts()
    with StandinHub(folder / "hub") as hub, OpenAIServer(answer) as explainer:
        environ = hub.environ | {"OMP_WAIT_POLICY": "passive", "OPENROUTER_API_KEY": KEY}
        copy = WorkingCopy.make(folder / "copy", **environ)
        copy.run("git", "rm", "-r", "--quiet", "results", "paper_figures")
        copy.run("langsae", "profile", "paper")
        path = copy.root / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        content = publish(hub, data, params, folder / "llama")
        refused = {}
        for token, faults in FAULTS.items():
            copy.environ["HF_TOKEN"] = token
            done = copy.modules(*((".", *stage) for _, stage in faults), check=False)
            refused |= {(token, *fault): end for fault, end in zip(faults, done, strict=True)}
        left = list((copy.root / "artifacts").rglob("*.json*"))
        lessen(params, explainer.url)
        path.write_text(yaml.safe_dump(params), encoding="utf-8")
        copy.environ["HF_TOKEN"] = TOKEN
        copy.modules(*((".", *stage) for stage in STAGES))
    return SimpleNamespace(
        copy=copy, root=copy.root, url=hub.url, data=data, content=content,
        refused=refused, left=left, keys=explainer.keys,
    )  # fmt: skip


def artifacts(paper, stage: str):
    return paper.root / "artifacts" / STUDY / "paper" / RUN / stage


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def examples(paper) -> dict[str, list[str]]:
    """The texts of corpus `lape` as the study reads them, by language, in the study's order."""
    data = paper.data
    return {
        code: [f"{premise} {hypothesis}" for premise, hypothesis in data.xnli.get(code, [])]
        + data.paws_x.get(code, [])
        + data.dev[code]
        for code in CODES
    }


def token_ids(paper, lines: list[str]) -> list[list[int]]:
    """By the tokenizers library, with the BOS that its own post-processor puts there."""
    tokenizer = load_tokenizer(paper.content["model"])
    return [tokenizer.encode(line).ids for line in lines]


@pytest.fixture(scope="module")
def network(paper, tmp_path_factory):
    return load_network(paper.content["model"], tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("key", [(token, *fault) for token, faults in FAULTS.items()
                                 for fault in faults])  # fmt: skip
def test_a_gated_repository_names_its_licence_page(paper, key):
    status, errors = paper.refused[key]
    _, page, _ = key
    told = [line for line in errors.splitlines() if line.startswith("langsae: error: ")]
    assert status == 2
    assert "Traceback" not in errors
    assert len(told) == 1
    name = page.removeprefix("datasets/")
    assert (
        f"{name} is gated: accept its licence on {paper.url}/{page}, then set HF_TOKEN" in told[0]
    )
    assert paper.left == []


def test_texts_are_the_published_parts(paper):
    totals = read(artifacts(paper, "collected") / "totals.json")
    expected = examples(paper)
    assert totals["examples"] == {code: len(lines) for code, lines in expected.items()}
    assert {totals["examples"][code] for code in ("it", "pt")} == {ROWS["dev"]}, "FLORES+ alone"
    assert totals["tokens"] == {
        code: sum(map(len, token_ids(paper, lines))) for code, lines in expected.items()
    }
    rows = pd.read_csv(artifacts(paper, "classified") / "scores.csv", keep_default_na=False)
    assert rows["label"].tolist() == [code for code in CODES for _ in range(ROWS["wili"])]


def test_sixteen_saes_fit_and_are_pinned(paper):
    index = read(paper.root / "artifacts/saes/llama_mlp/bank.json")
    assert list(index["saes"]) == sorted(f"mlp_out.{layer}" for layer in range(LAYERS))
    for hook, entry in index["saes"].items():
        assert entry["place"]["path"] == f"layers.{hook.split('.')[1]}.mlp"
        assert len(entry["place"]["revision"]) == 40
        assert 0 < entry["probe"]["fvu"] < 0.05


@pytest.mark.parametrize("layer", [0, 11])
def test_counts_equal_a_dense_recomputation_text_by_text(paper, network, layer):
    """k is the SAE's own: 24 slots a token, not sparsify's default of 32."""
    files = paper.content["saes"]
    w = read_safetensors(files[f"layers.{layer}.mlp/sae.safetensors"])
    w = {name: value.astype(np.float64) for name, value in w.items()}
    hits, texts_hit = np.zeros((2, len(CODES), LATENTS), np.int64)
    neurons = np.zeros((len(CODES), tiny_models.D_MLP), np.int64)
    near = np.zeros((len(CODES), LATENTS), bool)
    for row, lines in enumerate(examples(paper).values()):
        for ids in token_ids(paper, lines):
            x, gate = (values[layer] for values in mlp_activations(network, ids))
            pre = (x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"]
            order = np.sort(pre, axis=1)
            top = pre >= order[:, -K][:, None]
            hits[row] += top.sum(0)
            texts_hit[row] += top.any(0)
            edge = (order[:, -K] + order[:, -K - 1])[:, None] / 2
            near[row] |= (np.abs(pre - edge) < 1e-5).any(0)
            neurons[row] += (gate > 0).sum(0)
    found = load_file(artifacts(paper, "collected") / "lape_counts.safetensors")
    assert near.mean() < 0.01
    for name, expected in (("hits", hits), ("examples", texts_hit)):
        np.testing.assert_array_equal(found[name][layer][~near], expected[~near])
    tokens = read(artifacts(paper, "collected") / "totals.json")["tokens"]
    assert found["hits"][layer].sum(1).tolist() == [K * tokens[code] for code in CODES]
    fires = load_file(artifacts(paper, "collected") / "neuron_counts.safetensors")["hits"][layer]
    assert np.abs(fires - neurons).sum() <= 2, "a gate at zero may fall on either side"


def test_specific_features_are_those_of_the_published_rule(paper):
    """Written out again from section 2 of the study's method, feature by feature."""
    state = load_file(artifacts(paper, "collected") / "lape_counts.safetensors")
    totals = read(artifacts(paper, "collected") / "totals.json")
    tokens, texts_ = (np.array([totals[key][c] for c in CODES]) for key in ("tokens", "examples"))
    expected = set()
    for layer in range(LAYERS):
        for feature in range(LATENTS):
            hits, seen = (state[key][layer, :, feature] for key in ("hits", "examples"))
            often = (seen >= (0.98 * texts_).astype(int)).any()
            if not (often and (hits > (0.1 * tokens).astype(int)).any()):
                continue
            rates = hits / tokens
            masked = np.flatnonzero(rates >= 0.5 * rates.max())
            expected |= {(len(masked), CODES[i], layer, feature) for i in masked}
    rows = pd.read_csv(artifacts(paper, "identified") / "features.csv", keep_default_na=False)
    columns = ["languages", "language", "layer", "feature"]
    assert set(rows[columns].itertuples(index=False, name=None)) == expected
    assert {row[1] for row in expected if row[0] == 1} == set(CODES)


def test_perplexities_are_those_of_transformers(paper, network):
    found = load_file(artifacts(paper, "perplexity") / "perplexity.safetensors")
    for row, code in enumerate(CODES):
        for place, ids in enumerate(token_ids(paper, paper.data.devtest[code])):
            with torch.inference_mode():
                loss = network(torch.tensor([ids]), labels=torch.tensor([ids])).loss
            assert found["normal"][row, place] == pytest.approx(float(loss.exp()), rel=1e-4)
    matrices = {name for name in found if name != "normal" and "shared" not in name}
    assert len(matrices) == 24
    for name in matrices:
        if name.startswith("sae_"):  # not every language has neurons of its own
            assert (found[name] != found["normal"]).any((1, 2)).all()


def test_explanations_come_from_the_server_and_the_key_stays_secret(paper):
    rows = pd.read_csv(artifacts(paper, "interpreted") / "explanations.csv")
    assert set(rows["explanation"].dropna()) == {"letters"}
    assert set(rows["explainer"]) == {"openai/gpt-4.1"}
    assert len(pd.read_csv(artifacts(paper, "interpreted") / "scores.csv")) > 5
    assert paper.keys == {KEY}
    for folder in ("artifacts", "results", "scratch", "params.yaml"):
        top = paper.root / folder
        for path in [top, *top.rglob("*")]:
            for secret in (KEY, TOKEN):
                assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_published_values_are_measured(paper):
    """All but those that people judged, that need another program, or of which too little is
    recorded."""
    published = load_published(ROOT / "replications" / STUDY / "published.yaml")
    evidence = read(paper.root / "results" / STUDY / "paper.json")
    found = {(id, variant) for id, values in evidence["measured"].items() for variant in values}
    missing = {(c.id, c.variant) for c in published.claims} - found
    elsewhere = ("generation/labels/", "perplexity/sae_shared_max/", "evaluation/")
    by_hand = {key for key in missing if key[0].startswith("generation/reached/")}
    other_model = {key for key in missing if key[0].startswith("classification/fasttext/")}
    rest = {key for key in missing - by_hand - other_model if not key[0].startswith(elsewhere)}
    assert rest == set()
    assert {variant for _, variant in by_hand | other_model} == {"as published"}
    bases = {v["basis"] for values in evidence["measured"].values() for v in values.values()}
    assert bases == {"rerun"}
    asked = {finding.id for finding in published.findings if RUN in finding.subjects}
    assert asked == set(evidence["findings"])


def test_every_measured_claim_gets_a_verdict(paper):
    assert verify([STUDY], paper.root, acknowledge=True) == 0
    rows = read(paper.root / "results" / "verification.json")
    mine = [row for row in rows if row["study"] == STUDY and row["profile"] == "paper"]
    assert len(mine) > 9000
    assert {row["verdict"] for row in mine} == {"reproduced", "differs"}
    totals = [row for row in mine if row["id"].startswith("totals/")]
    assert {row["verdict"] for row in totals} == {"differs"}  # other texts than the study's


@pytest.mark.slow
def test_figures_are_drawn(paper):
    evidence = paper.root / "results" / STUDY / "paper.json"
    before = evidence.read_bytes()
    paper.copy.modules(*((".", *stage) for stage in SLOW))
    assert evidence.read_bytes() == before
    places = pd.read_csv(artifacts(paper, "directions") / "umap.csv", keep_default_na=False)
    assert set(places["language"]) == set(CODES)
    drawn = {path.name for path in (paper.root / "paper_figures" / STUDY / "paper").iterdir()}
    named = {"umap", "perplexity_neurons", "steering", "similarity_iou", "interpretation"}
    assert {f"{name}.{kind}" for name in named for kind in ("svg", "png")} <= drawn
    assert "active_features.html" in drawn
