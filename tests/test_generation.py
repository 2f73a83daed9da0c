"""Sampling and steering against transformers' own filters and plain recomputation."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from langsae.errors import InputError
from langsae.generate import Continuation, Generator, Request, Sampling, pick
from langsae.interventions import Edit, intervened
from langsae.metrics.generation import distinct, script_share
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.source import prepare
from langsae.models.spec import TinyModel

D = 32
SAMPLING = Sampling(temperature=0.8, top_k=40, top_p=0.9)
LIKELIEST = Sampling(top_k=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model")
    prepare(TinyModel(source="tiny", d_model=D, layers=3), folder / "m")
    model = load(folder / "m", "cpu")
    with torch.no_grad():  # a random model says nearly the same everywhere: sharpen it
        model.network.get_output_embeddings().weight *= 40
    return model


def edit(seed):
    shift = torch.randn(D, generator=torch.Generator().manual_seed(seed))
    return {HookPoint("mlp_out", 0): Edit(shift), HookPoint("mlp_out", 2): Edit(-shift)}


def write(model, requests, **how):
    how = {"new_tokens": 24, "sampling": SAMPLING, **how}
    return Generator(model).write(requests, Continuation(**how))


def likeliest(model, start, intervention, steps, changed_from=0, anew=None):
    """Greedy continuation, the whole sequence computed again for every token."""
    ids = list(start)
    for _ in range(steps):
        where = torch.arange(len(ids))[None] >= changed_from
        with torch.inference_mode(), intervened(model, intervention, where):
            scores = model.network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        ids.append(int(scores.argmax()))
        if ids[-1] == model.tokenizer.eos_token_id:
            return ids[:-1]
        if anew:
            ids = anew(ids)
    return ids


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.6, top_k=50, top_p=0.9),
        Sampling(temperature=1.7, top_p=0.5),
        Sampling(top_k=3),
        Sampling(),
        Sampling(top_p=1e-9),
    ],
)
def test_tokens_are_drawn_with_the_chances_transformers_gives(sampling):
    scores = 2 * torch.randn(1, 120, generator=torch.Generator().manual_seed(1))
    filtered = TemperatureLogitsWarper(sampling.temperature)(None, scores)
    if sampling.top_k:
        filtered = TopKLogitsWarper(sampling.top_k)(None, filtered)
    if sampling.top_p < 1:
        filtered = TopPLogitsWarper(sampling.top_p)(None, filtered)
    chances = filtered.softmax(-1)[0]
    n = 40_000
    even = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    drawn = torch.bincount(pick(scores.expand(n, -1), sampling, even), minlength=120) / n
    assert torch.allclose(drawn, chances, atol=2 / n)
    assert set(drawn.nonzero()[:, 0].tolist()) <= set(chances.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("prompt", ["", "human rights"])
def test_kept_keys_and_values_give_what_computing_anew_gives(model, prompt):
    start = [0, *model.tokenizer(prompt)["input_ids"]]
    requests = [Request(prompt, seed, edit(seed)) for seed in range(3)]
    found = write(model, [*requests, Request(prompt, 0, {})], sampling=LIKELIEST)
    expected = [likeliest(model, start, edit(seed), 24) for seed in range(3)]
    expected.append(likeliest(model, start, {}, 24))
    assert [list(text.ids) for text in found] == expected
    assert len({text.ids for text in found}) > 1
    assert found[0].context == len(start)


def test_last_is_the_prompts_last_token_and_every_chosen_one(model):
    prompt = "human rights"
    start = [0, *model.tokenizer(prompt)["input_ids"]]
    found = write(model, [Request(prompt, 0, edit(5))], sampling=LIKELIEST, positions="last")
    expected = likeliest(model, start, edit(5), 24, changed_from=len(start) - 1)
    assert list(found[0].ids) == expected
    assert list(found[0].ids) != likeliest(model, start, edit(5), 24)


def test_reencoding_decodes_and_encodes_before_every_token(model):
    tokenizer = model.tokenizer

    def anew(ids):
        return [0, *tokenizer(tokenizer.decode(ids[1:]))["input_ids"]]

    requests = [Request("", seed, edit(seed)) for seed in range(4)]
    found = write(model, requests, sampling=LIKELIEST, reencode=True)
    expected = [likeliest(model, [0], edit(seed), 24, anew=anew) for seed in range(4)]
    assert [list(text.ids) for text in found] == expected
    kept = write(model, requests, sampling=LIKELIEST)
    assert [text.ids for text in found] != [text.ids for text in kept]  # bytes that are no text
    assert all(text.text == tokenizer.decode(text.ids[1:]) for text in found)


def test_last_with_reencoding_changes_the_last_position_alone(model):
    tokenizer, prompt = model.tokenizer, "human"
    ids = [0, *tokenizer(prompt)["input_ids"]]
    for _ in range(6):
        where = torch.arange(len(ids))[None] == len(ids) - 1
        with torch.inference_mode(), intervened(model, edit(1), where):
            ids.append(int(model.network(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        ids = [0, *tokenizer(tokenizer.decode(ids[1:]))["input_ids"]]
    how = {"sampling": LIKELIEST, "reencode": True, "positions": "last", "new_tokens": 6}
    assert list(write(model, [Request(prompt, 0, edit(1))], **how)[0].ids) == ids


@pytest.mark.parametrize("reencode", [False, True])
def test_a_request_gives_the_same_text_in_any_batch(model, reencode):
    requests = [Request("", seed, edit(seed % 3)) for seed in range(24)]
    how = {"reencode": reencode, "new_tokens": 40, "sampling": Sampling(temperature=4.0)}
    together = write(model, requests, **how)
    for at in range(0, 24, 5):
        assert write(model, requests[at : at + 1], **how) == together[at : at + 1]
    lengths = {len(text.ids) for text in together}
    assert len(lengths) > 1  # some ended early, and left the batch
    assert len({text.ids for text in together}) > 12
    ends = [model.tokenizer.eos_token_id in text.ids[1:] for text in together]
    assert not any(ends)


def test_no_hook_stays_and_a_batch_has_one_prompt(model):
    write(model, [Request("", 0, edit(0))])
    assert not any(module._forward_hooks for module in model.network.modules())
    with pytest.raises(InputError, match="one prompt"):
        write(model, [Request("a", 0, {}), Request("b", 0, {})])
    with pytest.raises(InputError, match="empty prompt"):
        write(model, [Request("", 0, {})], bos="none")


@pytest.mark.parametrize(
    ("text", "script", "share"),
    [
        ("Привет, мир! abc", "Cyrl", 9 / 12),
        ("मनुष्यों ok", "Deva", 8 / 10),  # its vowel signs are marks
        ("1948年の宣言 UN", "Jpan", 4 / 6),
        ("1948年の宣言 UN", "Hans", 3 / 6),
        ("สวัสดี", "Thai", 1.0),
        ("e\u0301te\u0301", "Latn", 1.0),
        ("한국어", "Hang", 1.0),
        ("حقوق", "Arab", 1.0),
    ],
)
def test_script_share_by_hand(text, script, share):
    assert script_share(text, script) == pytest.approx(share)


def test_measures_of_nothing_are_not_zero():
    assert np.isnan(script_share("12 34!", "Latn"))
    assert np.isnan(distinct([], 1))
    assert np.isnan(distinct([4], 2))
    with pytest.raises(InputError, match="script 'Zzzz'"):
        script_share("a", "Zzzz")


def test_distinct_counts_different_ngrams():
    ids = [1, 2, 1, 2, 3]
    assert distinct(ids, 1) == 3 / 5
    assert distinct(ids, 2) == len(set(pairwise(ids))) / 4 == 3 / 4
