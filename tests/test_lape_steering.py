"""The stages that intervene, on a tiny model whose features are chosen by hand."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import write_json
from langsae.interventions import intervened
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.params import parse
from langsae.saes.bank import load_bank, write_index
from langsae.saes.spec import FolderBank
from langsae.saes.topk import InputNorm, TopKSAE
from replications.sae_lape import identified, steered
from replications.sae_lape.active import Active, active
from replications.sae_lape.generate import Generate, generate
from replications.sae_lape.perplexity import Perplexity, perplexity
from replications.sae_lape.run import Run
from replications.sae_lape.steering import FeatureSetting, feature_interventions

D, F, K = 32, 40, 6
HOOKS = ("mlp_out.1", "mlp_out.3")
TEXTS = {
    "en": ("all human beings are born free", "and equal in dignity", "and rights"),
    "ru": ("все люди рождаются", "свободными", "и равными"),
    "bg": ("всички хора се раждат", "свободни", "и равни"),
}
# features of each language, by hook; Russian has none in the second, English none at all
CHOSEN = {
    "bg": {"mlp_out.1": [3, 17], "mlp_out.3": [0]},
    "en": {},
    "ru": {"mlp_out.1": [5]},
}
COMPUTE = Compute(device="cpu", threads=1, batch_tokens=200)
RUN = Run(model="m", saes="s", corpus="c", test="c", impact="c", similarity="c")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A working folder with model, SAEs, corpus, and what stage identify would leave."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("work")
    prepare(TinyModel(source="tiny", d_model=D, layers=4), root / "artifacts/models/m")
    ParallelCorpus("c", TEXTS).save(root / "artifacts/corpora/c.jsonl")
    bank = root / "artifacts/saes/s"
    for seed, hook in enumerate(HOOKS):
        draw = torch.Generator().manual_seed(seed)
        encoder = torch.randn(F, D, generator=draw)
        norm = InputNorm("standard", torch.zeros(D), 0.5)
        decoder = torch.nn.functional.normalize(encoder, dim=1)
        sae = TopKSAE(encoder, torch.zeros(F), decoder, torch.zeros(D), K, hook, norm=norm)
        sae.save(bank / hook)
    spec = FolderBank(source="folder", path="x", model="m", corpus="c", hooks=HOOKS)
    write_index(bank, spec, {hook: {"path": hook} for hook in HOOKS}, {})
    _identified(root / "identified")
    return root


def _identified(folder: Path) -> None:
    rows = [
        (1, code, hook, int(hook[-1]), feature, 0.5, 0.4, 1.0 + feature, 10.0 + feature, 0.5, 0.4)
        for code, hooks in CHOSEN.items()
        for hook, features in hooks.items()
        for feature in features
    ]
    features = pd.DataFrame(rows, columns=list(identified.FEATURES))
    shared = features.iloc[:1].assign(languages=2, feature=9)
    shared = pd.concat([shared, shared.assign(language="ru")])
    selections = pd.concat(
        [
            features.assign(selection="all", rank=1),
            features.iloc[[0]].assign(selection="top", rank=1),
            shared.assign(selection="shared_2", rank=1),
        ]
    )
    neurons = pd.DataFrame(
        [("bg", "mlp_act.2", 2, 4, 0.1, 0.9, 8.0), ("en", "mlp_act.0", 0, 63, 0.1, 0.9, 2.0)],
        columns=list(identified.NEURONS),
    )
    folder.mkdir()
    features = pd.concat([features, shared])
    tables = {"features": features, "neurons": neurons, "selections": selections}
    identified.write(folder, tables)
    names = ["all", "top", "shared_2"]
    write_json(folder / "summary.json", {"languages": ["bg", "en", "ru"], "selections": names})


@pytest.fixture
def here(root, monkeypatch):
    monkeypatch.chdir(root)
    return root


def bytes_of(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_an_intervention_adds_multiplier_times_value_times_scaled_rows(here):
    bank = load_bank("artifacts/saes/s", torch.device("cpu"))
    features = identified.load("identified")
    made = feature_interventions(features, bank, FeatureSetting(value="max"), -0.2)
    assert list(made) == ["bg", "en", "ru"]
    assert made["en"] == {}
    rows = bank[HookPoint("mlp_out", 1)].W_dec.double().numpy()
    expected = -0.2 * 0.5 * (13.0 * rows[3] + 27.0 * rows[17])  # 0.5: the SAE's input scale
    np.testing.assert_allclose(made["bg"][HookPoint("mlp_out", 1)].shift, expected, rtol=1e-5)
    mean = feature_interventions(features, bank, FeatureSetting(value="avg", layers=(3,)), 1.0)
    assert mean["ru"] == {}
    only = bank[HookPoint("mlp_out", 3)].W_dec.double().numpy()
    found = mean["bg"][HookPoint("mlp_out", 3)].shift
    np.testing.assert_allclose(found, 0.5 * 1.0 * only[0], rtol=1e-5)
    assert list(mean["bg"]) == [HookPoint("mlp_out", 3)]
    with pytest.raises(InputError, match="no selection"):
        feature_interventions(features, bank, FeatureSetting(selection="bottom"), 1.0)


MATRICES = {
    "features": [
        {"selection": "all", "value": "max", "multipliers": [0, 0.2, -0.2]},
        {"selection": "shared_2", "multipliers": [0.2], "impacted": "own"},
    ],
    "neurons": [
        {"method": "fixed", "amounts": [0]},
        {"method": "scaled", "amounts": [0.5]},
    ],
}


def test_perplexity_stage(here, tmp_path):
    settings = parse(Perplexity, MATRICES, "p")
    perplexity(RUN, settings, COMPUTE, here / "identified", tmp_path / "a", tmp_path / "scratch")
    perplexity(RUN, settings, COMPUTE, here / "identified", tmp_path / "b", tmp_path / "scratch")
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    arrays = load_file(tmp_path / "a/perplexity.safetensors")
    normal = arrays["normal"]
    assert normal.shape == (3, 3)
    assert (arrays["sae_all_max/0"] == normal).all()
    up = arrays["sae_all_max/0.2"]
    assert (up[1] == normal).all()  # English has no features
    assert (up[[0, 2]] != normal).all()
    assert (arrays["neuron_fixed/0"][2] == normal).all()
    assert (arrays["neuron_fixed/0"][:2] != normal).any()
    _check_one_cell(normal, up)
    matrix, plain = steered.perplexities(tmp_path / "a")
    own = matrix[matrix["setting"] == "sae_shared_2_max/0.2"]
    assert list(zip(own["intervened"], own["impacted"], strict=True)) == [
        ("bg", "bg"), ("en", "en"), ("ru", "ru")
    ]  # fmt: skip
    row = matrix.query("setting == 'sae_all_max/0.2' and intervened == 'bg' and impacted == 'ru'")
    assert row["change"].item() == pytest.approx(np.mean(up[0, 2] - normal[2]))
    assert row["log_ratio"].item() == pytest.approx(np.mean(np.log(up[0, 2] / normal[2])))
    assert plain["mean"].tolist() == pytest.approx(normal.mean(1).tolist())


def _check_one_cell(normal, up):
    """Russian text 1 under Bulgarian's features, by a forward pass of its own."""
    model = load("artifacts/models/m", "cpu")
    bank = load_bank("artifacts/saes/s", torch.device("cpu"))
    made = feature_interventions(identified.load("identified"), bank, FeatureSetting(), 0.2)["bg"]
    ids = torch.tensor([[0, *model.tokenizer(TEXTS["ru"][1])["input_ids"]]])
    for expected, intervention in ((normal[2, 1], {}), (up[0, 2, 1], made)):
        with torch.inference_mode(), intervened(model, intervention):
            loss = model.network(input_ids=ids, labels=ids).loss
        assert np.exp(loss.item()) == pytest.approx(expected, rel=1e-5)


def test_perplexity_refuses_settings_named_alike_and_unaligned_texts(here, tmp_path):
    twice = {"features": [{"multipliers": [0.1, 0.1]}]}
    where = (COMPUTE, here / "identified", tmp_path / "out", tmp_path / "scratch")
    with pytest.raises(InputError, match="listed twice"):
        perplexity(RUN, parse(Perplexity, twice, "p"), *where)
    ParallelCorpus("u", TEXTS, aligned=False).save(here / "artifacts/corpora/u.jsonl")
    loose = RUN.model_copy(update={"impact": "u"})
    with pytest.raises(InputError, match="aligned rows"):
        perplexity(loose, parse(Perplexity, MATRICES, "p"), *where)
    assert not (tmp_path / "out").exists()


WRITING = {
    "steering": [
        {"alphas": [0.1, 5.0]},
        {"alphas": {"bg": [0.3]}, "reencode": True},
        {"alphas": {"ru": [0.3]}, "positions": "last"},
    ],
    "prompts": ["", "human"],
    "seeds": 3,
    "new_tokens": 8,
    "sampling": {"temperature": 3.0, "top_k": 200},
    "batch_rows": 5,
}


def test_generate_stage(here, tmp_path, monkeypatch):
    settings = parse(Generate, WRITING, "g")
    generate(RUN, settings, COMPUTE, here / "identified", tmp_path / "a", tmp_path / "scratch")
    generate(RUN, settings, COMPUTE, here / "identified", tmp_path / "b", tmp_path / "scratch")
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    frame = steered.texts(tmp_path / "a")
    counts = frame.groupby(["setting", "language", "alpha", "positions"]).size()
    assert counts.to_dict() == {
        ("baseline", "", 0.0, "all"): 6,
        ("baseline_reencoded", "", 0.0, "all"): 6,
        ("sae_all_max", "bg", 0.1, "all"): 6,
        ("sae_all_max", "bg", 5.0, "all"): 6,
        ("sae_all_max", "ru", 0.1, "all"): 6,
        ("sae_all_max", "ru", 5.0, "all"): 6,
        ("sae_all_max", "ru", 0.3, "last"): 6,
        ("sae_all_max_reencoded", "bg", 0.3, "all"): 6,
    }
    assert frame["seed"].isin([0, 1, 2]).all()
    # far from where the model was, the same seed writes something else
    key = ["prompt", "seed"]
    plain = frame[frame["setting"] == "baseline"].set_index(key)["text"]
    moved = frame.query("language == 'bg' and alpha == 5").set_index(key)["text"]
    assert (plain != moved.loc[plain.index]).all()
    _check_perplexity(frame)
    table, detected = steered.generations(tmp_path / "a")
    assert len(table) == len(counts)
    assert detected["count"].sum() == len(frame) == 48
    assert table["reached"].isna().sum() == 2  # unsteered text has no target


def _check_perplexity(frame):
    """Of one kept text, by transformers' own loss on what was added."""
    model = load("artifacts/models/m", "cpu")
    text = frame[(frame["prompt"] == "human") & (frame["tokens"] == 8)]
    ascii_only = text[text["text"].map(str.isascii)]
    for row in (ascii_only if len(ascii_only) else text.iloc[:0]).head(3).itertuples():
        context = [0, *model.tokenizer("human")["input_ids"]]
        added = model.tokenizer(row.text)["input_ids"]
        labels = torch.tensor([[-100] * len(context) + added])
        with torch.inference_mode():
            loss = model.network(input_ids=torch.tensor([context + added]), labels=labels).loss
        assert row.perplexity == pytest.approx(np.exp(loss.item()), rel=1e-4)


def test_a_killed_generation_goes_on(here, tmp_path, monkeypatch):
    settings = parse(Generate, WRITING | {"steering": [{"alphas": [0.1]}]}, "g")
    where = (COMPUTE, here / "identified")
    generate(RUN, settings, *where, tmp_path / "a", tmp_path / "s1")
    from langsae.generate import Generator

    real, calls = Generator.write, []

    def killed(self, requests, how):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, requests, how)

    monkeypatch.setattr(Generator, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        generate(RUN, settings, *where, tmp_path / "b", tmp_path / "s2")
    assert not (tmp_path / "b").exists()
    assert len(list((tmp_path / "s2").rglob("*.json"))) == 2
    generate(RUN, settings, *where, tmp_path / "b", tmp_path / "s2")
    assert len(calls) == 3 + 4 - 2  # four batches in all, two of them kept
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


def test_odd_texts_survive_the_table(tmp_path):
    texts = ["", "null", 'a "quoted", one\nline', "carriage\rreturn", "nul\x00byte", "\ufffd NaN"]
    frame = pd.DataFrame({"text": texts, "alpha": 0.5, "perplexity": [float("nan")] + [2.0] * 5})
    frame.to_csv(tmp_path / "texts.csv", index=False)
    found = steered.texts(tmp_path)
    assert found["text"].tolist() == texts
    assert found["perplexity"].isna().tolist() == [True] + [False] * 5


def test_active_stage_against_dense_codes(here, tmp_path):
    settings = Active(rows=":2", sentences={"Russian": ("мир",)})
    active(RUN, settings, COMPUTE, here / "identified", tmp_path / "out")
    table, shown = steered.active(tmp_path / "out")
    model = load("artifacts/models/m", "cpu")
    bank = load_bank("artifacts/saes/s", torch.device("cpu"))
    expected = []
    for code in ("bg", "en", "ru"):
        for number, text in enumerate([*TEXTS[code][:2], *(["мир"] if code == "ru" else [])]):
            ids = torch.tensor([[0, *model.tokenizer(text)["input_ids"]]])
            for hook, coder in bank.items():
                dense = coder.encode(model.activations(ids, [hook])[hook][0]).dense()
                for owner, hooks in CHOSEN.items():
                    for feature in hooks.get(str(hook), []):
                        for position in dense[:, feature].nonzero()[:, 0].tolist():
                            value = float(dense[position, feature])
                            expected.append(
                                (code, number, position, str(hook), feature, owner, value)
                            )
            mine = shown.query("language == @code and sentence == @number")
            assert "".join(mine["piece"]) == model.tokenizer.decode(ids[0])
    columns = ["language", "sentence", "position", "hook", "feature", "feature_language"]
    found = table.set_index(columns)["value"].to_dict()
    assert len(expected) > 20
    assert found == {row[:-1]: pytest.approx(row[-1], rel=1e-5) for row in expected}
    pieces = shown.set_index(["language", "sentence", "position"])["piece"]
    keys = pd.MultiIndex.from_frame(table[["language", "sentence", "position"]])
    assert pieces.loc[keys].tolist() == table["piece"].tolist()
