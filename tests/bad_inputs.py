"""Bad inputs, as data: each with the words of the one line that it must end in.

Each is made in an empty folder and given to a command there. `attempt` runs one in this process;
who wants a row of docs/faults.md for each reads `CASES` and `Attempt.sound`.
"""

import contextlib
import gzip
import importlib
import io
import json
import os
import re
import shutil
import struct
import sys
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as to_safetensors

from langsae import command

ROOT = Path(__file__).resolve().parents[1]
Make = Callable[[Path], None]
WIDE = b"en,es\nOne text.,Un texto.\nAnother one.,Otro m\xc3\xa1s.\n"
JSONL = b'{"en": "One text.", "es": "Un texto."}\n{"en": "Two.", "es": "Dos."}\n'
_SCRATCH = ("scratch", ".out.scratch")  # from which runs go on
_BAR = re.compile(r"\d+%\||\d+(it|step) \[")
D, LATENTS = 32, 64  # of the tiny model and of the SAEs made here


@dataclass(frozen=True)
class BadInput:
    """make: writes the input into an empty folder; command: a module and its arguments, run there;
    words: what the one line must say; prepared: the folder holds a tiny model and a corpus."""

    name: str
    make: Make
    command: tuple[str, ...]
    words: str
    prepared: bool = False


@dataclass(frozen=True)
class Attempt:
    """How a command ended: its exit status, what it wrote to stderr, and the files that changed."""

    status: int
    errors: str
    changed: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """What was said, without progress bars."""
        return [line for line in re.split("[\r\n]+", self.errors) if line.strip()
                and not _BAR.search(line)]  # fmt: skip

    def sound(self, words: str) -> bool:
        """One line with `words`, a status that says so, and nothing left."""
        lines = self.lines
        return self.status > 0 and len(lines) == 1 and words in lines[0] and not self.changed


def attempt(case: BadInput, folder: Path, prepared: Path | None = None) -> Attempt:
    """Make `case` in `folder`, which is to be new, and run its command in this process."""
    folder.mkdir(parents=True)
    if case.prepared:
        shutil.copytree(prepared, folder, dirs_exist_ok=True)
    case.make(folder)
    before = _listing(folder)
    status, errors = run_module(case.command, folder)
    after = _listing(folder)
    names = before.keys() | after.keys()
    changed = sorted(name for name in names if before.get(name) != after.get(name))
    return Attempt(status, errors, tuple(changed))


def run_module(arguments: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Run `python -m ARGUMENTS` in `folder`, here; (exit status, stderr), -1 for a traceback."""
    module, *rest = arguments
    errors, argv, here = io.StringIO(), sys.argv, Path.cwd()
    sys.argv = [module, *rest]
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            command.run(importlib.import_module(module).main)
    except SystemExit as ended:
        return int(ended.code or 0), errors.getvalue()
    except BaseException:
        return -1, errors.getvalue() + traceback.format_exc()
    finally:
        os.chdir(here)
        sys.argv = argv
    return 0, errors.getvalue()


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file by path, but for scratch."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in found if path.relative_to(folder).parts[0] not in _SCRATCH}  # fmt: skip


def prepare(folder: Path) -> None:
    """A tiny model and a corpus as the stages leave them, for the cases that want them."""
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(json.dumps(PREPARED))
    for module, name in (("corpus", "own"), ("model", "tiny")):
        status, errors = run_module((f"langsae.stages.{module}", name), folder)
        assert status == 0, errors


PREPARED: dict[str, Any] = {
    "profile": "smoke",
    "compute": {"device": "cpu", "threads": 1, "batch_tokens": 512, "checkpoint_seconds": 60},
    "corpora": {"own": {"source": "udhr", "languages": ["en", "es"], "rows": ":4"}},
    "models": {"tiny": {"source": "tiny", "d_model": D, "layers": 2}},
}


def files(contents: dict[str, bytes | str | dict[str, Any]]) -> Make:
    """Writes files; a mapping becomes JSON."""

    def make(folder: Path) -> None:
        for name, content in contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, dict):
                content = json.dumps(content)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


# --- texts


def local(name: str, content: bytes | str, words: str, file: str = "t.csv", **spec) -> BadInput:
    """A file of one's own, to stage prepare_corpora."""
    section = {"source": "local", "path": file, "languages": ["en", "es"]} | spec
    made = files({file: content, "params.yaml": {"corpora": {"own": section}}})
    return BadInput(f"texts: {name}", made, ("langsae.stages.corpus", "own"), words)


def corpus(name: str, words: str, key: str = "own", **spec) -> BadInput:
    """A section of `corpora`."""
    section = {"source": "udhr", "languages": ["en", "es"]} | spec
    made = files({"params.yaml": {"corpora": {key: section}}})
    return BadInput(f"corpus: {name}", made, ("langsae.stages.corpus", key), words)


def flores(name: str, contents: dict[str, bytes | str], words: str) -> BadInput:
    section = {"source": "flores_folder", "folder": "f", "languages": ["en", "es"]}
    made = files({"params.yaml": {"corpora": {"own": section}}, **contents})
    return BadInput(f"flores: {name}", made, ("langsae.stages.corpus", "own"), words)


TEXTS = [
    local("no such file", b"", "no such file", path="absent.csv"),
    local("a folder", b"", "no such file", file="f.csv/in", path="f.csv"),
    local("another extension", WIDE, "expected a .csv or .jsonl file", file="t.txt"),
    local("empty CSV", b"", "no rows in 'en'"),
    local("a header alone", b"en,es\n", "no rows in 'en'"),
    local("absent language", b"en,fr\nOne.,Un.\n", "unknown column 'es'"),
    local("an empty cell", b"en,es\nOne.,\n", "'es' is empty"),
    local("white space for a text", b"en,es\nOne., \t\n", "'es' is empty"),
    local("too many cells", b"en,es\nOne.,Uno.,Un.\n", "not as many cells"),
    local("too few cells", b"en,es\nOne.\n", "not as many cells"),
    local("an open quote", b'en,es\n"One.,Uno.\n', "not CSV"),
    local("a cell of many megabytes", b"en,es\nOne.," + b"a" * 200_000 + b"\n", "not CSV: field"),
    local("Latin-1", WIDE.replace(b"\xc3\xa1", b"\xe1"), "t.csv:3: not UTF-8"),
    local("two encodings in one file", WIDE + "ñ,ñ\n".encode("latin-1"), "t.csv:4: not UTF-8"),
    local("UTF-16", "en,es\nOne.,Uno.\n".encode("utf-16"), "not UTF-8"),
    local("a picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not UTF-8"),
    local("not JSON", b'{"en": "One.", "es": }\n', "t.jsonl:1: not JSON", file="t.jsonl"),
    local("cut JSON", JSONL[:-9], "t.jsonl:2: not JSON", file="t.jsonl"),
    local("JSON lists", b'["One.", "Uno."]\n', "expected a JSON object", file="t.jsonl"),
    local("null for a text", b'{"en": "One.", "es": null}\n', "'es' is not a text", file="t.jsonl"),
    local("a list for a text", b'{"en": "a", "es": ["b"]}\n', "'es' is not a text", file="t.jsonl"),
    local("an empty line", JSONL + b"\n" + JSONL, "t.jsonl:3: not JSON", file="t.jsonl"),
    local("half a surrogate pair", b'{"en": "One \\ud83d", "es": "Uno."}\n', "t.jsonl:1:",
          file="t.jsonl"),
    local("deep JSON", b'{"en":' + b"[" * 100_000, "t.jsonl:1:", file="t.jsonl"),
    local("a number of many digits", b'{"en": ' + b"9" * 5000 + b', "es": "b"}\n', "t.jsonl:1:",
          file="t.jsonl"),
    local("ids that repeat", b"id,en,es\n1,a,b\n1,c,d\n", "ids must be unique", id_column="id"),
    local("no id column", WIDE, "unknown column 'id'", id_column="id"),
    local("long: absent language", b"language,text\nen,One.\n", "language 'es' is absent",
          layout="long"),
    local("long: no such column", WIDE, "unknown column 'language'", layout="long"),
    local("long: ids that do not align", b"language,text,id\nen,a,1\nes,b,2\n", "has no text in",
          layout="long", id_column="id"),
    corpus("unknown language", "languages", languages=["en", "klingon"]),
    corpus("language twice", "listed twice", languages=["en", "eng_Latn"]),
    corpus("no languages", "languages", languages=[]),
    corpus("languages not a list", "languages", languages="en"),
    corpus("a language it does not have", "unknown language 'sw'", languages=["en", "is", "sw"]),
    corpus("rows that are no slice", "is not a slice", rows="first ten"),
    corpus("rows of step 0", "has step 0", rows="::0"),
    corpus("rows beyond the end", "selects none", rows="100000:"),
    corpus("rows by absurd numbers", "rows", rows="0:9" + "9" * 400 + ":0" + "9" * 5000),
    corpus("unknown normalisation", "normalise", normalise="NFZ"),
    corpus("unknown source", "source", source="oracle"),
    corpus("unknown key", "Extra inputs", row="1:2"),
    corpus("a negative length", "min_characters", min_characters=-1),
    corpus("texts shorter than any", "lower the limit", min_characters=10**9),
    corpus("a seed that is no number", "shuffle_seed", shuffle_seed="many"),
    corpus("a negative seed", "shuffle_seed", shuffle_seed=-1),
    corpus("a name that leads elsewhere", "name", key="/proc/langsae-escaped"),
    corpus("a name with a folder", "name", key="sub/own"),
    corpus("an empty union", "parts", source="union", parts=[]),
    flores("no such folder", {}, "no such folder"),
    flores("absent language", {"f/eng_Latn.txt": "One.\n"}, "spa_Latn.txt: no such file"),
    flores("files of other lengths", {"f/eng_Latn.txt": "One.\nTwo.\n", "f/spa_Latn.txt": "Uno.\n"},
           "differ in number of lines"),
    flores("an empty file", {"f/eng_Latn.txt": "", "f/spa_Latn.txt": "Uno.\n"}, "has no lines"),
    flores("an empty line", {"f/eng_Latn.txt": "a\n\nb\n", "f/spa_Latn.txt": "c\nd\ne\n"},
           "empty line"),
]  # fmt: skip


# --- settings


def yaml(name: str, content: bytes | str, words: str, target: str = "own") -> BadInput:
    made = files({"params.yaml": content})
    return BadInput(f"params.yaml: {name}", made, ("langsae.stages.corpus", target), words)


def conf(name: str, change: dict[str, bytes | str], words: str, profile: str = "smoke") -> BadInput:
    """The project's conf/ with files changed, to `langsae profile`."""

    def make(folder: Path) -> None:
        shutil.copytree(ROOT / "conf", folder / "conf")
        files({f"conf/{file}": content for file, content in change.items()})(folder)

    return BadInput(f"conf: {name}", make, ("langsae.cli", "profile", profile), words)


_BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
_SMOKE = (ROOT / "conf" / "smoke.yaml").read_text(encoding="utf-8")
SETTINGS = [
    BadInput("params.yaml: none", files({}), ("langsae.stages.corpus", "own"), "no such file"),
    yaml("empty", b"", "nothing at 'corpora.own'"),
    yaml("a list", b"- 1\n", "expected a mapping"),
    yaml("a word", b"corpora", "nothing at"),
    yaml("not YAML", b"corpora: {own: [}\n", "not valid YAML"),
    yaml("tabs", b"corpora:\n\town: 1\n", "not valid YAML"),
    yaml("a key twice", b"corpora:\n  own: {source: udhr}\n  own: {source: udhr}\n",
         "found duplicate key"),
    yaml("not UTF-8", b"corpora: \xff\xfe\n", "not valid YAML"),
    yaml("NUL bytes", b"corpora: \x00\n", "not valid YAML"),
    yaml("an object of Python's", b"corpora: !!python/object/apply:os.system ['true']\n",
         "not valid YAML"),
    yaml("no such section", b"corpora: {}\n", "'own' is missing"),
    yaml("a section that is a number", b"corpora: {own: 3}\n", "valid dictionary"),
    yaml("a reference to nothing", b"corpora: {own: '${absent.key}'}\n", "not valid YAML"),
    yaml("a reference to itself", b"corpora: {own: '${corpora.own}'}\n", "not valid YAML"),
    yaml("an unknown resolver", b"corpora: {own: '${env:HOME}'}\n", "not valid YAML"),
    yaml("references that multiply", _BOMB + "corpora: {own: *i}\n", "params.yaml"),
    yaml("a list within itself", b"corpora: {own: &a [*a]}\n", "aliases"),
    yaml("very deep", b"corpora: " + b"{a: " * 3000 + b"1" + b"}" * 3000, "params.yaml"),
    yaml("a name with dots", b"corpora: {own: 1}\n", "nothing at", target="../../own"),
    conf("unknown profile", {}, "is not a profile", profile="laptop"),
    conf("a profile that leads elsewhere", {}, "is not a profile", profile="../conf/smoke"),
    conf("a profile under another's name", {"smoke.yaml": _SMOKE.replace("smoke", "demo")},
         "must be the file's name"),
    conf("an unknown section", {"smoke.yaml": _SMOKE + "\ncorpra: {}\n"}, "no section is called"),
    conf("a section twice", {"smoke.yaml": _SMOKE + "\ncorpora: {}\n"}, "found duplicate key"),
    conf("no threads", {"smoke.yaml": _SMOKE.replace("threads: 1", "threads: 0")}, "threads"),
    conf("a NaN of seconds", {"smoke.yaml": _SMOKE.replace("seconds: 5", "seconds: .nan")},
         "checkpoint_seconds"),
    conf("an unknown device", {"smoke.yaml": _SMOKE.replace("device: cpu", "device: abacus")},
         "device"),
    conf("an unknown key of compute", {"smoke.yaml": _SMOKE.replace("threads:", "thread:")},
         "Extra inputs"),
    conf("an empty file", {"smoke.yaml": ""}, "profile is 'None'"),
    BadInput("conf: none", files({}), ("langsae.cli", "profile", "smoke"), "no such file"),
]  # fmt: skip


# --- models


def model(name: str, words: str, make: Make | None = None, /, **spec) -> BadInput:
    """A section of `models`, to stage prepare_model."""
    section = {"source": "folder", "path": "m"} | spec

    def both(folder: Path) -> None:
        files({"params.yaml": {"models": {"own": section}}})(folder)
        (make or (lambda _: None))(folder)

    return BadInput(f"model: {name}", both, ("langsae.stages.model", "own"), words)


MODELS = [
    model("no such folder", "no config.json there"),
    model("no weights", "no *.safetensors there", files({"m/config.json": {}})),
    model("pickled weights", "pickled weights are not read",
          files({"m/config.json": {}, "m/pytorch_model.bin": b"\x80\x04N."})),
    model("an unset variable", "set the environment variable", path="$LANGSAE_NOT_SET/m"),
    model("a key of another source", "Extra inputs", source="tiny"),
    model("negative layers", "layers", source="tiny", layers=-1),
    model("unknown dtype", "dtype", dtype="int3"),
    model("unknown source", "source", source="attic"),
    model("no revision", "revision", source="hub", repo="a/b"),
    model("an unknown embedded model", "name", source="embedded", name="gpt-5"),
    model("a tokenizer with a path", "Extra inputs", source="tokenizer", file="t",
          vocab="v", merges="m", bos_token="b"),
]  # fmt: skip


def spoilt_model(name: str, words: str, change: Make) -> BadInput:
    """The prepared model with files changed since, to stage prepare_saes."""

    def make(folder: Path) -> None:
        files({"params.yaml": PREPARED | {"saes": {"own": TRAIN}}})(folder)
        change(folder / "artifacts" / "models" / "tiny")

    return BadInput(f"stored model: {name}", make, ("langsae.stages.saes", "own"), words, True)


def _cut(name: str) -> Make:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


TRAIN = {
    "source": "train", "model": "tiny", "corpus": "own", "hooks": ["resid_post.0"],
    "training": {"n_latents": LATENTS, "k": 4, "batch_tokens": 64},
}  # fmt: skip
MODELS += [
    spoilt_model("truncated weights", "changed since it was prepared", _cut("model.safetensors")),
    spoilt_model("no tokenizer", "missing or changed",
                 lambda folder: (folder / "tokenizer.json").unlink()),
    spoilt_model("no record", "model.json: no such file",
                 lambda folder: (folder / "model.json").unlink()),
    spoilt_model("a record that is no JSON", "not valid JSON", _cut("model.json")),
    spoilt_model("a record without its parts", "model.json: spec: Field required",
                 lambda folder: (folder / "model.json").write_text("{}")),
    spoilt_model("a record of names elsewhere", "missing or changed", lambda folder: (
        folder / "model.json").write_text(json.dumps({"spec": PREPARED["models"]["tiny"],
                                                      "sha256": {"../../../x": "0" * 64}}))),
]  # fmt: skip


# --- SAEs


def arrays(d: int = D, latents: int = LATENTS) -> dict[str, np.ndarray]:
    """GemmaScope's five arrays."""
    draw = np.random.default_rng(0).standard_normal
    shapes = {"W_enc": (d, latents), "b_enc": latents, "W_dec": (latents, d), "b_dec": d,
              "threshold": latents}  # fmt: skip
    return {name: draw(shape).astype(np.float32) for name, shape in shapes.items()}


def npz(change: Callable[[dict[str, Any]], Any] = lambda _: None, d: int = D) -> bytes:
    found, packed = arrays(d), io.BytesIO()
    change(found)
    np.savez(packed, **found)
    return packed.getvalue()


def zipped(**entries: bytes) -> bytes:
    """A compressed archive of .npy files, whatever they hold."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return packed.getvalue()


def npy(shape: tuple[int, ...], content: bytes, dtype: str = "<f4") -> bytes:
    """A .npy file whose header may lie."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return head.getvalue() + content


def sparsify(change: Callable[[dict[str, Any]], Any] = lambda _: None, d: int = D) -> bytes:
    made = arrays(d)
    found = {"W_dec": made["W_dec"], "b_dec": made["b_dec"], "encoder.bias": made["b_enc"],
             "encoder.weight": made["W_enc"].T.copy()}  # fmt: skip
    change(found)
    return to_safetensors(found)


CFG = {"activation": "topk", "k": 4, "num_latents": LATENTS, "d_in": D}


def bank(name: str, words: str, contents: dict[str, Any], **spec) -> BadInput:
    """SAEs in a folder `s`, to stage prepare_saes with the tiny model."""
    section = {"source": "folder", "model": "tiny", "corpus": "own",
               "hooks": ["resid_post.0"]} | spec  # fmt: skip

    def make(folder: Path) -> None:
        own = section | ({"path": str(folder / "s")} if section["source"] == "folder" else {})
        files({"params.yaml": PREPARED | {"saes": {"own": own}}, **contents})(folder)

    return BadInput(f"SAE: {name}", make, ("langsae.stages.saes", "own"), words, True)


def from_npz(name: str, content: bytes, words: str, **spec) -> BadInput:
    return bank(f"npz, {name}", words, {"s/params.npz": content}, **spec)


def from_sparsify(name: str, words: str, content: bytes | None = None, **config) -> BadInput:
    contents = {"s/sae.safetensors": sparsify() if content is None else content}
    return bank(name, words, contents | {"s/cfg.json": CFG | config})


def trained(name: str, words: str, **training) -> BadInput:
    """A bank to train with settings of `training` changed."""
    section = TRAIN | {"training": TRAIN["training"] | training}
    return bank(f"to train, {name}", words, {}, **section)


def _set(name: str, value: float) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda found: found[name].reshape(-1).__setitem__(0, value)


_ZEROS = bytes(64 << 20)
SMALL = {
    name: npy(array.shape, array.tobytes()) for name, array in arrays().items() if name != "W_enc"
}
_HUGE_HEADER = struct.pack("<Q", 1 << 62) + b"{}"
SAES = [
    bank("no such folder", "no SAE there", {}),
    bank("an empty folder", "no SAE there", {"s/readme": "?"}),
    from_npz("not a zip", b"PK not really", "not whole"),
    from_npz("cut short", npz()[:-200], "not whole"),
    from_npz("a flipped bit", (lambda data: data[:3000] + b"!" + data[3001:])(npz()), "not whole"),
    from_npz("an array missing", npz(lambda found: found.pop("threshold")), "threshold"),
    from_npz("NaN", npz(_set("W_dec", np.nan)), "W_dec holds NaN"),
    from_npz("infinite", npz(_set("b_enc", np.inf)), "b_enc holds NaN or infinite"),
    from_npz("another width", npz(d=D + 8), "reads width 40, the model has 32"),
    from_npz("one shape wrong", npz(lambda found: found.update(b_dec=found["b_dec"][:-1])),
             "b_dec has shape"),
    from_npz("a scalar", npz(lambda found: found.update(W_enc=np.float32(1))), "has shape"),
    from_npz("pickled objects", npz(lambda found: found.update(W_enc=np.array([{}], object))),
             "W_enc"),
    from_npz("words", npz(lambda found: found.update(W_enc=np.array(["a"]))), "W_enc"),
    from_npz("a bomb", zipped(**SMALL, W_enc=npy((16 << 20,), _ZEROS)), "unpacks to"),
    from_npz("a header that claims terabytes", zipped(**SMALL, W_enc=npy((1 << 40,), b"\0" * 64)),
             "its header"),
    from_npz("a header of negative size", zipped(**SMALL, W_enc=npy((-4,), b"\0" * 16)), "W_enc"),
    from_npz("no header", zipped(**SMALL, W_enc=b"\0" * 100), "W_enc"),
    from_npz("held to be another kind", npz(), "is a jumprelu SAE, not topk", architecture="topk"),
    from_npz("explains nothing", npz(_set("threshold", 0.0)), "FVU"),
    from_sparsify("truncated safetensors", "not whole", sparsify()[:-50]),
    from_sparsify("an empty file", "not whole", b""),
    from_sparsify("a header of absurd size", "not whole", _HUGE_HEADER),
    from_sparsify("NaN weights", "NaN", sparsify(_set("W_dec", np.nan))),
    from_sparsify("infinite weights", "holds NaN or infinite", sparsify(_set("encoder.weight",
                  -np.inf))),
    from_sparsify("another width", "reads width 28, the model has 32", sparsify(d=D - 4)),
    from_sparsify("a tensor missing", "b_dec", sparsify(lambda found: found.pop("b_dec"))),
    from_sparsify("k above its latents", "k is 65", k=LATENTS + 1),
    from_sparsify("k of 0 or less", "k is -3", k=-3),
    from_sparsify("k that is a word", "cfg.json", k="many"),
    from_sparsify("a transcoder", "transcoders are not SAEs", transcode=True),
    from_sparsify("another activation", "is not supported", activation="groupmax"),
    bank("a config that is no JSON", "not valid JSON",
         {"s/sae.safetensors": sparsify(), "s/cfg.json": b"{"}),
    bank("a config that is a list", "cfg.json", {"s/sae.safetensors": sparsify(),
         "s/cfg.json": b"[1]"}),
    bank("a hook that is none", "is not a hook point", {}, hooks=["resid_post"]),
    bank("a layer the model lacks", "the model has layers 0..1", {"s/params.npz": npz()},
         hooks=["resid_post.7"]),
    bank("a hook twice", "listed twice", {}, hooks=["resid_post.0", "resid_post.0"]),
    bank("a hook that leads elsewhere", "is not a hook point", {}, hooks=["../../resid_post.0"]),
    bank("no hooks", "hooks", {}, hooks=[]),
    bank("a model that was not prepared", "no such file", {"s/params.npz": npz()}, model="absent"),
    bank("texts that were not prepared", "no such file", {"s/params.npz": npz()}, corpus="absent"),
    trained("no latents", "n_latents", n_latents=0),
    trained("k above its latents", "k is 65", k=LATENTS + 1),
    trained("absurd latents", "out of memory", n_latents=10**15),
    trained("a NaN rate", "training.lr", lr=float("nan")),
    trained("an unknown key", "Extra inputs", learning_rate=1),
]  # fmt: skip


def spoilt_corpus(name: str, words: str, change: Callable[[bytes], bytes]) -> BadInput:
    def make(folder: Path) -> None:
        files({"params.yaml": PREPARED | {"saes": {"own": TRAIN}}})(folder)
        path = folder / "artifacts" / "corpora" / "own.jsonl"
        path.write_bytes(change(path.read_bytes()))

    return BadInput(f"stored corpus: {name}", make, ("langsae.stages.saes", "own"), words, True)


STORED = [
    spoilt_corpus("a text changed", "do not match its digest",
                  lambda data: data.replace(b"free", b"fair", 1)),
    spoilt_corpus("cut short", "not JSON", lambda data: data[:-40]),
    spoilt_corpus("empty", "not a langsae corpus", lambda _: b""),
    spoilt_corpus("a header without its parts", "own.jsonl", lambda _: b'{"langsae": "corpus"}\n'),
    spoilt_corpus("a number for a text", "own.jsonl:2: holds what is no text",
                  lambda data: data.split(b"\n")[0] + b'\n{"en": 1, "es": 2}\n'),
    spoilt_corpus("packed", "not UTF-8", gzip.compress),
]  # fmt: skip


# --- checkpoints, and the stages of the studies


def history(name: str, words: str, **spec: Any) -> BadInput:
    """A section of `histories`, to stage prepare_history."""
    section = {"source": "pretrain", "corpus": "own", "tokenizer": {"vocabulary": 300, "least": 2},
               "model": {"d_model": 16, "layers": 1, "heads": 2, "d_mlp": 32},
               "training": {"steps": 2, "rows": 2, "row_tokens": 16}} | spec  # fmt: skip
    made = files({"params.yaml": PREPARED | {"histories": {"own": section}}})
    return BadInput(f"history: {name}", made, ("langsae.stages.history", "own"), words, True)


def stage(module: str, name: str, words: str, key: str = "own", **run: Any) -> BadInput:
    """A run of a study, to one of its stages; its model and texts are there, its SAEs are not."""
    study = module.split(".")[0]
    given = {"model": "tiny", "corpus": "own", "saes": "own",
             "policy": {"bos": "prepend", "count_bos": False}} | RUNS[study] | run  # fmt: skip
    made = files({"params.yaml": PREPARED | {study: {"runs": {"own": given}}}})
    return BadInput(f"{module}: {name}", made, (f"replications.{module}", key), words, True)


RUNS: dict[str, dict[str, Any]] = {
    "flores_exploration": {"hooks": ["resid_post.0"]},
    "bilingual_score": {"hook": "resid_post.0"},
    "sae_lape": {"hooks": ["mlp_out.0"], "test": "own", "impact": "own", "similarity": "own"},
}
SHAPE, STEPS = {"layers": 1, "heads": 2, "d_mlp": 32}, {"rows": 2, "row_tokens": 16}
STAGES = [
    history("unknown source", "source", source="dream"),
    history("unknown key", "Extra inputs", checkpoint=[1]),
    history("a checkpoint beyond the end", "beyond the last step", checkpoints=[3]),
    history("a negative checkpoint", "checkpoints", checkpoints=[-1]),
    history("no steps", "steps", training=STEPS | {"steps": 0}),
    history("a NaN rate", "muon_lr", training=STEPS | {"steps": 2, "muon_lr": float("nan")}),
    history("heads that do not divide", "heads", model=SHAPE | {"d_model": 17}),
    history("no texts", "no such file", corpus="absent"),
    history("steps of one place", "{step}", source="checkpoints",
            groups=[{"steps": [1, 2], "model": {"source": "folder", "path": "m"}}]),
    *(
        case
        for module in ("flores_exploration.collect", "bilingual_score.collect", "sae_lape.collect")
        for case in (
            stage(module, "no such run", "'other' is missing", key="other"),
            stage(module, "a run that leads elsewhere", "nothing at", key="../own"),
            stage(module, "unknown key", "Extra inputs", hoks=["resid_post.0"]),
            stage(module, "unknown policy", "bos", policy={"bos": "perhaps", "count_bos": False}),
            stage(module, "a model that was not prepared", "no such file", model="absent"),
            stage(module, "texts that were not prepared", "no such file", corpus="absent"),
            stage(module, "SAEs that were not prepared", "no such file"),
        )
    ),
]  # fmt: skip


# --- the other commands


def cli(name: str, words: str, *arguments: str, make: Make | None = None) -> BadInput:
    return BadInput(
        f"{arguments[0]}: {name}", make or files({}), ("langsae.cli", *arguments), words
    )


def run(name: str, words: str, study: str = "flores_exploration", extra: tuple[str, ...] = (),
        **options: str) -> BadInput:  # fmt: skip
    given = {"model": "tiny", "sae": "train", "corpus": "udhr", "hooks": "resid_post.0",
             "languages": "en,es", "out": "out"} | options  # fmt: skip
    words_ = [part for key, value in given.items() for part in (f"--{key}", value)]
    return cli(name, words, "run", study, *words_, *extra)


def published(name: str, words: str, text: str, **result: Any) -> BadInput:
    """A study's published.yaml and its evidence, to `langsae verify`."""
    contents: dict[str, Any] = {"replications/toy/published.yaml": text}
    if result:
        contents["results/toy/paper.json"] = result
    return cli(name, words, "verify", make=files(contents))


def evidence(name: str, words: str, value: str) -> BadInput:
    text = (
        '{"study": "toy", "profile": "paper", "seed": 0, "inputs": {}, "measured": '
        '{"a/b": {"as published": {"basis": "rerun", "value": VALUE}}}}'
    ).replace("VALUE", value)
    made = files({"replications/toy/published.yaml": PUBLISHED, "results/toy/paper.json": text})
    return cli(f"evidence, {name}", words, "verify", make=made)


PUBLISHED = """\
study: toy
sources: {paper: none}
tolerances: {exact: {absolute: 0, why: counts}}
claims: [{id: a/b, value: 1, unit: u, source: paper, tolerance: exact}]
"""
COMMANDS = [
    cli("unknown study", "no study 'astrology'", "verify", "--study", "astrology"),
    published("a NaN published", "not a finite number",
              PUBLISHED.replace("value: 1", "value: .nan")),
    published("null published", "missing (null)", PUBLISHED.replace("value: 1", "value: null")),
    published("a claim twice", "a/b", PUBLISHED.replace("claims: [", "claims: [{id: a/b, value: 1, "
              "unit: u, source: paper, tolerance: exact}, ")),
    published("an unknown key", "Extra inputs", PUBLISHED + "claim: []\n"),
    published("a key twice", "found duplicate key", PUBLISHED + "claims: []\n"),
    published("no such tolerance", "no tolerance is named", PUBLISHED.replace("tolerance: exact",
              "tolerance: loose")),
    published("another study's", "in the folder 'toy'", PUBLISHED.replace("toy", "other")),
    published("a negative tolerance", "absolute", PUBLISHED.replace("absolute: 0", "absolute: -1")),
    published("evidence without its parts", "paper.json", PUBLISHED, study="toy"),
    evidence("NaN", "not a finite number", "NaN"),
    evidence("infinity", "not a finite number", "1e999"),
    evidence("null", "missing (null)", "null"),
    evidence("cut short", "not valid JSON", "1}"),
    run("unknown study", "no study 'astrology'", study="astrology"),
    run("a study that leads elsewhere", "no study", study="../replications/sae_lape"),
    run("a study of more corpora", "load impact, similarity, test too", study="sae_lape"),
    run("a study of checkpoints", "run one of bilingual_score, flores_exploration",
        study="llmjp_tracing"),
    run("no such corpus", "neither udhr", corpus="nowhere"),
    run("no such setting", "--set", extra=("--set", "flores.colour=red")),
    run("a setting without a value", "--set", extra=("--set", "compute.threads")),
    run("a release without its parts", "release:NAME:ID", sae="release:gpt2"),
    BadInput("repro: outside a project", files({}), ("langsae.cli", "repro"), "in no DVC project"),
    cli("an unknown corpus", "no such Parquet file", "tokenise", "--model", "tiny", "--data",
        "nowhere.parquet",
        "--out", "out"),
    cli("not Parquet", "is not a Parquet file", "tokenise", "--model", "tiny", "--data",
        "t.parquet", "--out", "out", make=files({"t.parquet": b"PAR0" * 9})),
    cli("no languages", "say which --languages", "tokenise", "--model", "tiny", "--data", "udhr",
        "--out", "out"),
    cli("a context of nothing", "hold no text", "tokenise", "--model", "tiny", "--data", "udhr",
        "--languages", "en", "--out", "out", "--ctx-len", "1"),
    cli("an unknown module", "the model has layers 0..2", "train", "--model", "tiny", "--data",
        "udhr", "--languages", "en",
        "--out", "out", "--hooks", "layers.99.mlp", "--ctx-len", "16"),
    cli("k of 0", "greater than or equal to 1", "train", "--model", "tiny", "--data", "udhr",
        "--languages", "en",
        "--out", "out", "--hooks", "layers.0.mlp", "--ctx-len", "16", "--k", "0"),
]  # fmt: skip

CASES = [*TEXTS, *SETTINGS, *MODELS, *SAES, *STORED, *STAGES, *COMMANDS]
