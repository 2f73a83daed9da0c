"""What runs on a GPU gives what it gives on the CPU; skipped where there is none."""

from types import SimpleNamespace

import pytest
import torch

from langsae.reducers.counts import FeatureCounts
from langsae.saes.threshold import ThresholdSAE
from langsae.saes.topk import InputNorm
from langsae.saes.train import TopKTrainer, TrainSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def vectors(tokens: int, width: int) -> torch.Tensor:
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(0))


def test_threshold_sae_gives_the_same_codes():
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(*shape, generator=generator) for shape in ((32, 300), (300,), (300, 32))]
    sae = ThresholdSAE(*parts, torch.zeros(32))
    x = vectors(1000, 32)
    ours = sae.to(torch.device("cuda")).encode(x.cuda())
    torch.testing.assert_close(ours.dense().cpu(), sae.encode(x).dense(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", ["float32", "bfloat16"])
def test_training_follows_the_cpu(encoder):
    spec = TrainSpec(
        n_latents=2048, k=8, batch_tokens=256, warmup_steps=5, input_norm="none", encoder=encoder
    )
    losses = {}
    for device in ("cpu", "cuda"):
        trainer = TopKTrainer(spec, 64, "resid_post.0", InputNorm("none"), device)
        batches = vectors(256 * 20, 64).split(256)
        losses[device] = [trainer.step(batch.to(device)) for batch in batches]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


def test_reducers_add_up_to_the_same_bytes():
    """Sums on a fixed grid are exact, so atomic additions in any order give the same."""
    from langsae.models.tokens import TokenTable
    from langsae.reducers.base import SparseBatch
    from langsae.saes.codes import SparseCodes

    generator = torch.Generator().manual_seed(2)
    token = torch.arange(5000).repeat_interleave(20)
    feature = torch.randint(0, 100, (len(token),), generator=generator)
    value = torch.rand(len(token), generator=generator)
    states = []
    for device in ("cpu", "cuda"):
        rows = torch.arange(5000, device=device)
        table = TokenTable(rows % 3, rows, rows, rows, rows < 0)
        codes = SparseCodes(*(part.to(device) for part in (token, feature, value)), (5000, 100))
        counts = FeatureCounts({}, 1, 3, 100, device)
        coder = SimpleNamespace(encode=lambda vectors, codes=codes: codes)
        counts.update(SparseBatch(0, table, value, coder, "resid_post.0"))
        states.append({key: state.cpu() for key, state in counts.state.items()})
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
