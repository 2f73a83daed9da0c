"""Scores translations with COMET-22; run by langsae.comet.client under COMET's own Python.

Imports nothing of langsae. Reads one JSON list of {"src", "mt", "ref"} a line on stdin and answers
each with one JSON object a line: first {"ready": what was loaded}, then {"scores": one a
translation, 1 is best} or {"error": why not}.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

REPO = "Unbabel/wmt22-comet-da"
REVISION = "2760a223ac957f30acfb18c8aa649b01cf1d75f2"
CHECKPOINT = "checkpoints/model.ckpt"
# A pickle, which runs code when it is loaded: only this file is.
CHECKPOINT_SHA256 = "e213091cde220f97b89f8bdfa750c458cfea741ad62affb455b59900210ff2af"
BATCH = 32


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get among the answers
    try:
        model, gpus = _load()
    except Exception as error:
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        return 1
    _say(answers, {"ready": {"repo": REPO, "revision": REVISION, "gpus": gpus}})
    for line in sys.stdin:
        try:
            _say(answers, {"scores": _scores(model, gpus, json.loads(line))})
        except Exception as error:
            _say(answers, {"error": f"{type(error).__name__}: {error}"})
            return 1
    return 0


def _load():
    import torch
    from comet import load_from_checkpoint
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(REPO, revision=REVISION))
    found = _sha256(folder / CHECKPOINT)
    if found != CHECKPOINT_SHA256:
        raise ValueError(f"{REPO} {CHECKPOINT}: sha256 {found}, not {CHECKPOINT_SHA256}")
    return load_from_checkpoint(str(folder / CHECKPOINT)), int(torch.cuda.is_available())


def _sha256(path):
    sha = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            sha.update(block)
    return sha.hexdigest()


def _scores(model, gpus, triples):
    # no workers: a data loader's processes would inherit this one's pipes
    done = model.predict(triples, batch_size=BATCH, gpus=gpus, num_workers=0, progress_bar=False)
    return [float(score) for score in done["scores"]]


def _say(answers, message):
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    raise SystemExit(main())
