"""How alike a language's features are, and which features languages share.

Within a language: on its own texts, over tokens, the intersection over union of where two of its
specific features fire, and Pearson's r of their activations where both do. Between languages:
the features that they share with others (not the specific ones), as intersection and IoU.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt
from safetensors.numpy import save_file

from langsae import sharded, stream
from langsae.command import run
from langsae.compute import Compute
from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import publish, write_json
from langsae.launch import settings as launch_settings
from langsae.launching import LOCAL, Launch
from langsae.metrics import overlap
from langsae.models.hooks import HookPoint
from langsae.models.language_model import load
from langsae.models.tokens import tokenise
from langsae.params import Spec, section
from langsae.paths import expand
from langsae.reducers.base import Reducer
from langsae.reducers.pair_counts import SUMS, PairCounts
from langsae.saes.bank import load_bank
from replications.sae_lape import identified, published_features
from replications.sae_lape.run import STUDY, Run, folder


class Compare(Spec):
    """decimals: activations are rounded to so many before they are correlated."""

    decimals: NonNegativeInt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help=f"a key of `{STUDY}.runs` in params.yaml")
    name = parser.parse_args().run
    wanted, profile = section(f"{STUDY}.runs.{name}", Run), section("profile", str)
    out = folder(profile, name, "compared")
    if wanted.published is not None:
        with publish(out) as part:
            part.mkdir(parents=True)
            published_features.compare(expand(wanted.published), part)
        return
    settings, compute = section(f"{STUDY}.compare", Compare), section("compute", Compute)
    compute.apply()
    found = identified.load(folder(profile, name, "identified"))
    compare(wanted, settings, compute, found, out, Path("scratch") / STUDY, launch_settings())


def compare(
    wanted: Run, settings: Compare, compute: Compute, found: identified.Identified, out: Path,
    scratch: Path, how: Launch = LOCAL,
) -> None:  # fmt: skip
    """Compare the features of `found`; publish similarity, labels and shared.csv at `out`."""
    lists = found.lists()
    again = partial(_open, wanted, settings, compute, lists)
    opened = again()
    if opened.bank:
        [pairs] = sharded.collect(opened, again, compute, scratch, how)
    else:
        [pairs] = opened.reducers()
    labels = {code: [f"{hook}/{id}" for hook, id in places] for code, places in lists.items()}
    with publish(out) as part:
        part.mkdir(parents=True)
        pairs.save(part / f"{pairs.name}.safetensors")  # refuses sums that are not exact
        state = {name: tensor.cpu().numpy() for name, tensor in pairs.state.items()}
        save_file(similarities(state, list(lists)), part / "similarity.safetensors")
        write_json(part / "labels.json", labels)
        shared_table(found).to_csv(part / "shared.csv", index=False, float_format="%.10g")


def _open(
    wanted: Run,
    settings: Compare,
    compute: Compute,
    lists: dict[str, list[tuple[HookPoint, int]]],
) -> sharded.Pass:
    """Each language's own texts, through the hooks that have a feature."""
    path = Path("artifacts/corpora") / f"{wanted.similarity}.jsonl"
    corpus = ParallelCorpus.load(path).select(lists)
    model = load(Path("artifacts/models") / wanted.model, compute.device)
    saes = load_bank(Path("artifacts/saes") / wanted.saes, model.device, wanted.hooks)
    used = {hook for places in lists.values() for hook, _ in places}
    bank = {hook: coder for hook, coder in saes.items() if hook in used}
    if len(bank) < len(used):
        raise InputError(f"saes {wanted.saes}: not those of the features; run identify again")
    tokens = tokenise(model.tokenizer, corpus, wanted.policy)
    hooks = {hook: place for place, hook in enumerate(bank)}
    places = [[(hooks[hook], id) for hook, id in part] for part in lists.values()]
    width = max(coder.n_features for coder in saes.values())
    header = stream.header(model, bank, tokens, corpus.digest())
    device = str(model.device)

    def reducers() -> list[Reducer]:
        return [PairCounts(header, places, width, settings.decimals, device)]

    return sharded.Pass(model, bank, tokens, reducers)


def similarities(state: dict[str, np.ndarray], codes: list[str]) -> dict[str, np.ndarray]:
    """`iou/<language>` and `pearson/<language>`, float64 [n, n]; [0, 0] without features."""
    found = {}
    for at, code in enumerate(codes):
        both, total, square, product = (state[f"{name}/{at}"] for name in SUMS)
        found[f"iou/{code}"] = overlap.iou(both)
        found[f"pearson/{code}"] = overlap.pearson(both, total, square, product)
    return found


def shared_table(found: identified.Identified) -> pd.DataFrame:
    """Intersection and IoU of every pair of languages' shared features."""
    shared = found.features[found.features["languages"] > 1]
    member = pd.crosstab([shared["hook"], shared["feature"]], shared["language"])
    member = member.reindex(columns=list(found.languages), fill_value=0)
    both, iou = overlap.set_overlap(member.to_numpy() > 0)
    return pd.DataFrame(
        {"language_a": a, "language_b": b, "intersection": both[i, j], "iou": iou[i, j]}
        for i, a in enumerate(found.languages)
        for j, b in enumerate(found.languages)
    )


if __name__ == "__main__":
    run(main)
