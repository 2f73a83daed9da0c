"""The `langsae` command."""

import argparse
import sys
from pathlib import Path

from langsae import command, own_run, profiles, repro, train_options
from langsae.errors import InputError
from langsae.verify import studies_of, verify


def main() -> None:
    """Parse the command line and run the command; bad input is one line and exit status 2."""
    arguments = _parser().parse_args()
    command.one_line(lambda: sys.exit(arguments.action(arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="langsae", description="How SAE features behave across languages."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_profile(commands)
    _add_repro(commands)
    _add_verify(commands)
    _add_doctor(commands)
    _add_run(commands)
    _add_train(commands)
    _add_tokenise(commands)
    return parser


def _add_profile(commands) -> None:
    sub = commands.add_parser("profile", help="compose conf/ into params.yaml for `dvc repro`")
    sub.add_argument("name", help=f"one of {', '.join(profiles.PROFILES)}")
    sub.set_defaults(action=lambda arguments: profiles.write(arguments.name))


def _add_repro(commands) -> None:
    sub = commands.add_parser(
        "repro",
        help="`dvc repro`, one at a time; takes its arguments",
        prefix_chars="\0",  # options, --help too, are DVC's
        add_help=False,
    )
    sub.add_argument("arguments", nargs=argparse.REMAINDER)
    sub.set_defaults(action=lambda arguments: repro.run(arguments.arguments))


def _add_verify(commands) -> None:
    sub = commands.add_parser("verify", help="published numbers beside measured ones")
    sub.add_argument("--study", action="append", default=[], help="only this one; may be repeated")
    sub.add_argument("--all", action="store_true", help="every row, not only the summary")
    sub.add_argument(
        "--acknowledge", action="store_true",
        help="accept changed verdicts: write results/verification.json and README's table",
    )  # fmt: skip
    sub.set_defaults(action=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    unknown = set(arguments.study) - set(studies_of("."))
    if unknown:
        known = ", ".join(studies_of(".")) or "none; run this in the project's folder"
        raise InputError(f"no study '{unknown.pop()}' with a published.yaml here: {known}")
    return verify(arguments.study, ".", arguments.acknowledge, arguments.all)


def _add_doctor(commands) -> None:
    sub = commands.add_parser("doctor", help="whether this machine has what a profile needs")
    sub.add_argument("--profile", help="default: the one in params.yaml")
    sub.set_defaults(action=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from langsae import doctor  # torch and Matplotlib, which other commands start without

    return doctor.run(arguments.profile)


def _add_run(commands) -> None:
    sub = commands.add_parser(
        "run",
        help="a study's measures on your own model, SAEs and corpus",
        description=own_run.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("study")
    sub.add_argument("--model", required=True)
    sub.add_argument("--sae", required=True)
    sub.add_argument("--corpus", required=True)
    sub.add_argument("--hooks", required=True, help="as resid_post.9,resid_post.15")
    sub.add_argument("--languages", required=True, help="comma-separated ISO 639-1 codes")
    sub.add_argument("--out", type=Path, required=True, help="folder for everything that is made")
    sub.add_argument("--rows", help="rows of the corpus, as a Python slice such as 0:500")
    sub.add_argument("--train-rows", help="rows to train on, when --sae is train; default --rows")
    sub.add_argument("--latents", type=int, default=4096, help="when --sae is train")
    sub.add_argument("--k", type=int, default=32, help="of a TopK SAE trained here")
    sub.add_argument("--batch-tokens", type=int, default=2048, help="tokens a training step")
    sub.add_argument("--transformer-lens-weights", action="store_true")
    sub.add_argument("--count-bos", action="store_true", help="BOS enters the SAEs and counts")
    sub.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="a setting of params.yaml, as bilingual_score.score.k=50; repeatable",
    )  # fmt: skip
    sub.set_defaults(action=own_run.run)


def _add_train(commands) -> None:
    sub = commands.add_parser(
        "train",
        help="train SAEs and write them in EleutherAI's format",
        description=train_options.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train_options.add_train(sub)
    sub.set_defaults(action=_train, transformer_lens_weights=False)


def _add_tokenise(commands) -> None:
    sub = commands.add_parser("tokenise", help="texts as sequences of tokens for `langsae train`")
    train_options.add_data(sub)
    sub.set_defaults(action=_tokenise, transformer_lens_weights=False)


def _train(arguments: argparse.Namespace) -> int:
    from langsae import train_saes  # torch, which other commands start without

    return train_saes.run(arguments)


def _tokenise(arguments: argparse.Namespace) -> int:
    from langsae import train_saes

    return train_saes.tokenise(arguments)


if __name__ == "__main__":
    main()
