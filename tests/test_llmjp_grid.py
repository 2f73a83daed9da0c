"""The SAE grid of llmjp_tracing: one pass a checkpoint, resumed to the byte, failures named."""

import functools
import json
import multiprocessing
import os
import pickle
import random
import shutil
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save as to_safetensors
from tqdm import tqdm

from langsae.activations import ActivationChunks
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import write_json
from langsae.launching import Launch
from langsae.models.language_model import LanguageModel, load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel
from langsae.models.tokens import tokenise
from langsae.saes.bank import load_bank
from langsae.saes.train import TopKTrainer, TrainSpec
from langsae.saes.train_bank import train_bank
from replications.llmjp_tracing import grid as grid_of_saes
from replications.llmjp_tracing import rates, train
from replications.llmjp_tracing.grid import at_once, cells
from replications.llmjp_tracing.run import Run
from standin_hub import run_with_hub
from working_copy import ROOT

LAYERS, STEPS = 3, (0, 10, 200)
HOOKS = [f"resid_post.{layer}" for layer in range(LAYERS)]
# checkpoint_seconds 0: every step is saved, which a kill may then hit
COMPUTE = Compute.model_construct(device="cpu", threads=1, batch_tokens=256, checkpoint_seconds=0)
TRAINING = {
    "n_latents": 48, "k": 4, "lr": 1e-2, "warmup_steps": 2, "batch_tokens": 128, "log_every": 2,
    "dead_tokens": 256,
}  # fmt: skip


def study(**saes) -> Run:
    grid = {"source": "train", "training": TRAINING, "chunk_tokens": 600, **saes}
    return run_of(grid)


def run_of(saes: dict, **changes) -> Run:
    texts = {"training": "train", "evaluation": "held_out", "impact": "", "parallel": ""}
    given = {"history": "tiny", "embeddings": "tiny", "policy": {"max_tokens": 24}, **changes}
    return Run(**texts, **given, saes=saes)


def words(seed: int, texts: int) -> tuple[str, ...]:
    draw = random.Random(seed)
    return tuple(
        " ".join(draw.choices(["cat", "猫", "rain", "雨", "sat"], k=9)) for _ in range(texts)
    )


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    """A project's artifacts: a history of three tiny models and two corpora."""
    root = tmp_path_factory.mktemp("project")
    history = root / "artifacts/histories/tiny"
    for seed, step in enumerate(STEPS):
        spec = TinyModel(source="tiny", d_model=16, layers=LAYERS, seed=seed)
        prepare(spec, history / f"step_{step:07d}")
    write_json(history / "history.json", {"steps": list(STEPS), "spec": {}})
    for seed, (name, texts) in enumerate({"train": 40, "held_out": 9}.items()):
        both = {"en": words(seed, texts), "ja": words(seed + 9, texts)}
        ParallelCorpus(name, both).save(root / f"artifacts/corpora/{name}.jsonl")
    return root


@pytest.fixture
def project(prepared, tmp_path, monkeypatch) -> Path:
    threads = torch.get_num_threads()
    shutil.copytree(prepared, tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    yield tmp_path / "p"
    torch.set_num_threads(threads)


def files(folder: Path) -> dict[str, bytes]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def grid(out: str = "out", run: Run | None = None) -> dict[str, bytes]:
    train.train(run or study(), 1e-2, COMPUTE, Launch(), Path(out))
    return files(Path(out))


def test_one_pass_trains_what_a_pass_a_layer_would(project, monkeypatch):
    calls, plain = [], LanguageModel.activations

    @functools.wraps(plain)
    def counted(self, ids, hooks):
        hooks = list(hooks)
        calls.append(len(hooks))
        return plain(self, ids, hooks)

    monkeypatch.setattr(LanguageModel, "activations", counted)
    together = grid()
    run = study()
    for step in STEPS:
        model = load(f"artifacts/histories/tiny/step_{step:07d}", "cpu")
        corpus = ParallelCorpus.load(Path("artifacts/corpora/train.jsonl"))
        tokens = tokenise(model.tokenizer, corpus, run.policy)
        for hook in HOOKS:
            alone = Path(f"alone/{step}/{hook}")
            chunks = ActivationChunks(model, [hook], tokens, COMPUTE, 600, 0, alone / "chunks")
            train_bank(chunks, {hook: run.saes.training}, alone / "s", alone / "out")
            found = {
                name: together[f"step_{step:07d}/saes/{name}"] for name in files(alone / "out")
            }
            assert found == files(alone / "out")
            assert len(json.loads(found[f"{hook}/training.json"])) >= 4
    batches = len(tokens.batches(COMPUTE.batch_tokens))
    passes = [calls[i : i + batches] for i in range(0, calls.count(LAYERS), batches)]
    # one pass a checkpoint for all layers; besides, the probe looks at a sample once more
    assert len(passes) <= 2 * len(STEPS)
    assert calls.count(LAYERS) <= len(STEPS) * 2 * batches


@pytest.mark.parametrize("epochs", [1, 2])
def test_groups_of_layers_train_the_same(project, monkeypatch, epochs):
    """What fits on a GPU decides how many layers share a pass, not what is trained."""
    run = study(training={**TRAINING, "epochs": epochs})
    whole = grid("whole", run)
    monkeypatch.setattr(grid_of_saes, "fitting", lambda spec, model: 2)
    assert grid("grouped", run) == whole


def test_how_many_saes_fit():
    spec = TrainSpec(n_latents=32_768, batch_tokens=32_768)
    weights = 32_768 * 2048 * 2 * 4
    assert at_once(10**9, spec, 2048) == 1, "one has to"
    many = at_once(40 * 10**9, spec, 2048)
    assert 15 <= many <= 23
    assert many * 3 * weights < 40 * 10**9 < (many + 3) * 3 * weights
    assert at_once(80 * 10**9, spec, 2048) > 2 * many


def test_published_banks_load(project):
    grid()
    for step in STEPS:
        bank = load_bank(f"out/step_{step:07d}", "cpu")
        assert [str(hook) for hook in bank] == HOOKS
        assert {sae.norm.kind for sae in bank.values()} == {"l2"}
    assert json.loads(Path("out/grid.json").read_text()) == {"steps": list(STEPS), "lr": 1e-2}
    assert not list(Path("scratch").rglob("*.safetensors")), "nothing is left behind"
    chosen = study().model_copy(update={"layers": (2,)})
    grid("layer", chosen)
    assert [str(hook) for hook in load_bank("layer/step_0000010", "cpu")] == ["resid_post.1"]


def test_cells_travel_and_are_named_by_their_inputs(project):
    """A cell goes to another process as it is; what it depends on, and only that, is its key."""

    def folders(run: Run, lr: float = 1e-2, compute: Compute = COMPUTE) -> list[Path]:
        found = cells(run, Path("artifacts/histories/tiny"), lr, compute, Path("scratch"))
        assert pickle.loads(pickle.dumps(found)) == found
        assert list(found) == [f"step {step}" for step in STEPS]
        return [cell.folder for cell in found.values()]

    same = folders(study())
    assert len(set(same)) == len(STEPS)
    assert folders(study(rates=(1e-2, 1e-3))) == same
    assert folders(study().model_copy(update={"impact": "other"})) == same
    others = [
        folders(study(), lr=1e-3),
        folders(study(chunk_tokens=700)),
        folders(study().model_copy(update={"layers": (1,)})),
        folders(study(), compute=COMPUTE.model_copy(update={"threads": 2})),
    ]
    write_json(Path("artifacts/histories/tiny/step_0000010/model.json"), {"sha256": {}})
    of_another_model = folders(study())
    assert [of_another_model[i] == same[i] for i in range(3)] == [True, False, True]
    assert not {*same} & {folder for other in others for folder in other}


def test_epochs_keep_activations_and_one_does_not(project, monkeypatch):
    kept = []
    monkeypatch.setattr(ActivationChunks, "clear", lambda self: kept.append(
        len(list(self.folder.glob("chunk*")))))  # fmt: skip
    once = grid()
    twice = grid("twice", study(training={**TRAINING, "epochs": 2}))
    assert kept[:3] == [0, 0, 0]
    assert min(kept[3:]) > 1
    name = f"step_0000010/saes/{HOOKS[1]}/training.json"
    steps = [json.loads(found[name])[-1]["step"] for found in (once, twice)]
    assert steps[1] == 2 * steps[0]


def test_failed_cells_are_named_and_the_others_kept(project, monkeypatch):
    weights = project / "artifacts/histories/tiny/step_0000010/model.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right[:-4] + b"\0\0\0\1")
    with pytest.raises(InputError, match=r"1 of 3 failed.*step 10: .*missing or changed") as caught:
        grid()
    assert "step 0:" not in str(caught.value)
    assert "step 200:" not in str(caught.value)
    assert not Path("out").exists()
    weights.write_bytes(right)
    steps, step = [], TopKTrainer.step
    monkeypatch.setattr(TopKTrainer, "step", lambda self, x: (steps.append(0), step(self, x))[1])
    mended = grid()
    of_one = len(steps)
    steps.clear()
    assert grid("anew") == mended
    assert len(steps) == 3 * of_one, "only the failed cell was made again"


def slow_grid(folder: str, steps) -> None:
    """The grid in a process of its own, slowed down, with a byte into `steps` at every step."""
    tqdm.set_lock(threading.RLock())  # its own is shared with the children killed before
    os.chdir(folder)
    step = TopKTrainer.step

    def slowly(self, x):
        steps.send_bytes(b"1")
        time.sleep(0.01)
        return step(self, x)

    TopKTrainer.step = slowly
    grid()


@pytest.fixture(scope="session")
def server():
    """Starts processes that have everything imported, so that they train at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_llmjp_grid", "transformers.models.llama.modeling_llama",
                                    "transformers.models.auto.tokenization_auto"])  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # its parent's is not passed on
        forkserver.ensure_running()
    return context


def killed_at_random(server, project: Path, kills: int, seed: int) -> list[int]:
    """Kill the grid `kills` times while it trains; how many cells were finished at each."""
    draw, finished = random.Random(seed), []
    for _ in range(kills):
        steps, child_end = server.Pipe(duplex=False)
        child = server.Process(target=slow_grid, args=(str(project), child_end))
        child.start()
        child_end.close()
        try:
            # of 108 steps in all; a start that finds them all done ends with the pipe
            for _ in range(draw.randrange(1, 170 // kills)):
                assert steps.poll(120)
                steps.recv_bytes()
            time.sleep(draw.uniform(0, 0.03))
        except EOFError:
            break
        finally:
            child.kill()
            child.join()
        finished.append(len(list(project.glob("scratch/**/bank/bank.json"))))
    return finished


def check_kills(server, project: Path, kills: int, seed: int) -> None:
    finished = killed_at_random(server, project, kills, seed)
    assert len(finished) == kills, "every kill should hit a grid that trains"
    assert finished[0] < len(STEPS)
    assert finished[-1] > 0, "what was done before a kill is kept"
    resumed = grid()
    assert not (project / "scratch").is_dir() or not any((project / "scratch").rglob("*.json"))
    assert grid("whole") == resumed


def test_killed_grid_resumes_identically(server, project):
    check_kills(server, project, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_twenty_kills(server, project, seed):
    check_kills(server, project, kills=20, seed=seed)


def dense_losses(sae, x: np.ndarray) -> tuple[float, float]:
    """Loss and FVU by dense NumPy in float64."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    W_enc, b_enc, W_dec, b_dec = (tensor.double().numpy() for tensor in sae.tensors().values())
    acts = np.maximum((x - b_dec) @ W_enc.T + b_enc, 0)
    acts *= acts >= np.sort(acts, axis=1)[:, -sae.k][:, None]
    error = np.square(acts @ W_dec + b_dec - x).sum(1)
    return error.mean(), error.sum() / np.square(x - x.mean(0)).sum()


def test_rates(project, monkeypatch):
    run = study(rates=(3e-4, 1e-2, 1e-3, 1e-2))
    kept, plain = {}, rates.losses_of

    def keeping(saes, *rest):
        kept.update(saes)
        return plain(saes, *rest)

    monkeypatch.setattr(rates, "losses_of", keeping)
    rates.choose(run, COMPUTE, Launch(), Path("rates"))
    found = json.loads(Path("rates/rates.json").read_text())
    assert (found["hook"], found["layer"], found["step"]) == ("resid_post.0", 1, 200)
    assert found["grid"] == [3e-4, 1e-3, 1e-2]
    model = load("artifacts/histories/tiny/step_0000200", "cpu")
    texts = ParallelCorpus.load(Path("artifacts/corpora/held_out.jsonl")).texts
    vectors = []
    for text in (*texts["en"], *texts["ja"]):
        ids = [0, *model.tokenizer(text, add_special_tokens=False)["input_ids"]][:24]
        with torch.inference_mode():
            states = model.network(torch.tensor([ids]), output_hidden_states=True).hidden_states
        vectors.append(states[1][0, 1:].double().numpy())
    x = np.concatenate(vectors)
    for lr in found["grid"]:
        loss, fvu = dense_losses(kept[f"lr {lr}"], x)
        held_out = found["held_out"][str(lr)]
        assert held_out["tokens"] == len(x)
        assert held_out["loss"] == pytest.approx(loss, rel=1e-4)
        assert held_out["fvu"] == pytest.approx(fvu, rel=1e-4)
        assert set(found["curves"][str(lr)][0]) == {"step", "loss", "fvu", "dead_fraction"}
    best = min(found["grid"], key=lambda lr: found["held_out"][str(lr)]["loss"])
    assert found["selected"] == best == 1e-2
    assert not list(Path("scratch").rglob("*.safetensors"))


def test_each_rate_trains_as_it_would_alone(project):
    rates.choose(study(rates=(1e-3, 1e-2)), COMPUTE, Launch(), Path("rates"))
    curves = json.loads(Path("rates/rates.json").read_text())["curves"]
    run = study().model_copy(update={"layers": (1,)})
    alone = grid("grid", run)
    assert json.loads(alone[f"step_0000200/saes/{HOOKS[0]}/training.json"]) == curves["0.01"]
    assert curves["0.01"] != curves["0.001"]


@pytest.mark.parametrize(
    ("saes", "selected"),
    [({"source": "train", "training": TRAINING}, 1e-2), ({"source": "hub", "repo": "a/b"}, None),
     ({"source": "none"}, None)],
)  # fmt: skip
def test_runs_without_rates(project, saes, selected):
    published = "x.csv" if saes["source"] == "none" else None
    run = run_of(saes, published=published)
    rates.choose(run, COMPUTE, Launch(), Path("rates"))
    found = json.loads(Path("rates/rates.json").read_text())
    assert (found["selected"], found["grid"]) == (selected, [])


def test_a_run_without_saes_publishes_an_empty_grid(project):
    run = run_of({"source": "none"}, history="none", published="x.csv")
    assert grid(run=run) == {"grid.json": b'{\n "lr": 0.01,\n "steps": []\n}\n'}


# Both stages of run `tiny` as commands, in one process.
STAGES = """
import os, runpy, sys
os.chdir(os.environ["project"])
for stage in ("rates", "train"):
    sys.argv = [stage, "tiny"]
    runpy.run_module(f"replications.llmjp_tracing.{stage}", run_name="__main__", alter_sys=True)
"""


def exact_sae(d: int = 16, k: int = 16) -> dict[str, bytes]:
    """In the study's layout: latents +-e_i, which give x / |x| back as it is."""
    rows = np.concatenate([np.eye(d), -np.eye(d)]).astype(np.float32)
    tensors = {"encoder.weight": rows, "decoder.weight": np.ascontiguousarray(rows.T)}
    tensors |= {"encoder.bias": np.zeros(2 * d, np.float32), "b_dec": np.zeros(d, np.float32)}
    config = {"model_type": "topk_sae", "d_in": d, "num_latents": 2 * d, "k": k}
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": to_safetensors(tensors, metadata={"format": "pt"}),
    }


def test_published_saes_of_every_checkpoint(hub, project):
    """As the paper's profile has it: an SAE a repository, in the authors' layout."""
    commits = {
        f"llm-jp/sae-l{layer}-c{step}": hub.add_repo(f"llm-jp/sae-l{layer}-c{step}", exact_sae())
        for layer in (0, 2) for step in STEPS
    }  # fmt: skip
    saes = {"source": "hub", "repo": "llm-jp/sae-l{layer}-c{step}"}
    run = run_of(saes, layers=(1, 3)).model_dump(mode="json")
    compute = Compute(device="cpu", threads=1).model_dump()
    params = {"profile": "paper", "compute": compute, "llmjp_tracing": {"runs": {"tiny": run}}}
    Path("params.yaml").write_text(json.dumps(params))
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    run_with_hub(hub, STAGES, project=str(project), PYTHONPATH=path)
    out = project / "artifacts/llmjp_tracing/paper/tiny"
    assert json.loads((out / "rates/rates.json").read_text())["selected"] is None
    for step in STEPS:
        index = json.loads((out / f"saes/step_{step:07d}/bank.json").read_text())["saes"]
        assert list(index) == ["resid_post.0", "resid_post.2"]
        for hook, entry in index.items():
            repo = f"llm-jp/sae-l{hook[-1]}-c{step}"
            assert entry["place"] == {"repo": repo, "revision": commits[repo], "path": "."}
            assert entry["probe"]["fvu"] < 1e-9
    assert not list(out.rglob("*.safetensors")), "published weights stay in the hub's cache"


@pytest.mark.parametrize(
    ("layers", "n_layers", "expected"),
    [(None, 24, 12), (None, 28, 14), (None, 3, 1), (None, 1, 1), ((12,), 24, 12),
     ((1, 5, 20), 24, 5), ((10, 14), 24, 10)],
)  # fmt: skip
def test_the_middle_layer(layers, n_layers, expected):
    assert rates.middle(layers, n_layers).layer + 1 == expected
