"""A stand-in for COMET's environment: a program that runs score.py with packages of its own."""

import hashlib
import sys
from pathlib import Path

from langsae.comet import score

# What the two packages of COMET's environment do, as far as score.py calls them.
PACKAGES = {
    "torch.py": "class cuda:\n    is_available = staticmethod(lambda: False)\n",
    "huggingface_hub.py": (
        "def snapshot_download(repo, revision):\n"
        "    print('a progress bar on stdout')\n"
        "    assert (repo, len(revision)) == ('Unbabel/wmt22-comet-da', 40)\n"
        "    return {folder!r}\n"
    ),
    "comet.py": (
        "import os, sys\n"
        "class Model:\n"
        "    def predict(self, data, batch_size, gpus, num_workers, progress_bar):\n"
        "        print('noise on stdout')\n"
        "        if data[0]['mt'] == 'die':\n"
        "            print('last words', file=sys.stderr)\n"
        "            os._exit(3)\n"
        "        if data[0]['mt'] == 'fail':\n"
        "            raise RuntimeError('out of\\nmemory')\n"
        "        if data[0]['mt'] == 'nan':\n"
        "            return {{'scores': [float('nan')]}}\n"
        "        if data[0]['mt'] == 'environment':\n"
        "            return {{'scores': [float('OPENAI_API_KEY' in os.environ)]}}\n"
        "        return {{'scores': [len(d['mt']) / len(d['ref'] + d['src']) for d in data]}}\n"
        "def load_from_checkpoint(path):\n"
        "    assert path.endswith('checkpoints/model.ckpt')\n"
        "    return Model()\n"
    ),
}


def build(folder: Path) -> Path:
    """The program to set $LANGSAE_COMET to; its packages and checkpoint lie in `folder`.

    A translation scores its length over that of reference and source together; "die", "fail",
    "nan" and "environment" do what they say.
    """
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/model.ckpt").write_bytes(b"a checkpoint")
    for name, text in PACKAGES.items():
        (folder / name).write_text(text.format(folder=str(folder)))
    # the checkpoint's hash is a constant of score.py: the stand-in runs a copy with another
    copy = folder / "score.py"
    sha = hashlib.sha256(b"a checkpoint").hexdigest()
    copy.write_text(Path(score.__file__).read_text().replace(score.CHECKPOINT_SHA256, sha))
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={folder} exec {sys.executable} {copy} "$@"\n')
    program.chmod(0o755)
    return program
