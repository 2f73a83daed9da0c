"""The authors' raw scores and predictions on the WiLI-2018 test, as one CSV lists them.

Columns: row_in_language, label, text, pred_fasttext_lid176bin, pred_sae_count, pred_neuron_count,
sae_count_raw_<language>, neuron_count_<language>; languages in any spelling `find` knows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from langsae.corpora.parallel import ParallelCorpus
from langsae.errors import InputError
from langsae.files import read_json
from langsae.languages import find
from langsae.paths import expand
from replications.sae_lape.classified import column

_RAW = {"sae-count": "sae_count_raw_", "neuron-count": "neuron_count_"}
_PREDICTED = {
    "fasttext": "pred_fasttext_lid176bin",
    "sae-count": "pred_sae_count",
    "neuron-count": "pred_neuron_count",
}
# which of feature_counts.json are the lists behind the scores
_LISTS = {"sae-count": "sae_features/lape_all", "neuron-count": "lape_neuron"}


@dataclass(frozen=True)
class PublishedScores:
    """Tables by text, indexed by (label, row): true counts, and predicted languages (codes)."""

    scores: pd.DataFrame
    predictions: pd.DataFrame

    def of(self, corpus: ParallelCorpus) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The columns of both tables for the texts of `corpus`, in its order.

        Raises InputError for a text they lack.
        """
        texts = [(code, row) for code, column in corpus.texts.items() for row in range(len(column))]
        for code, row in texts:
            if (code, row) not in self.scores.index:
                raise InputError(f"{corpus.name}: {code} text {row} has no published score")
        return tuple(
            {name: table.loc[texts, name].to_numpy() for name in table.columns}
            for table in (self.scores, self.predictions)
        )


def read(path: str, languages: tuple[str, ...]) -> PublishedScores:
    """Scores in `languages` (codes) of every text in the CSV at `path`.

    The authors' sae-count adds a row's score again with every later row of its language (their
    classify.py:284), so row i of n carries the factor n - i, which is divided out here. Raises
    InputError for a missing column, or a score that is no multiple of its factor.
    """
    file = expand(path)
    try:
        table = pd.read_csv(file, keep_default_na=False)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from error
    try:
        return _parse(table, languages, file)
    except KeyError as error:
        raise InputError(
            f"{file}: has no column of {error.args[0]}; give the whole file"
        ) from error


def _parse(table: pd.DataFrame, languages: tuple[str, ...], file: Path) -> PublishedScores:
    label = table["label"].map(lambda name: find(name).code)
    keys = pd.MultiIndex.from_arrays([label, table["row_in_language"]], names=["label", "row"])
    factor = label.map(label.value_counts()) - table["row_in_language"]
    scores = {}
    for classifier, prefix in _RAW.items():
        spelled = {find(name.removeprefix(prefix)).code: name
                   for name in table.columns if name.startswith(prefix)}  # fmt: skip
        for code in languages:
            raw = table[spelled[code]]
            if classifier == "sae-count":
                if (raw % factor).any():
                    raise InputError(f"{file}: {spelled[code]} is no multiple of its row's factor")
                raw = raw // factor
            scores[column(classifier, code)] = raw
    predictions = {
        classifier: table[name].map(lambda language: find(language).code)
        for classifier, name in _PREDICTED.items()
    }
    return PublishedScores(*(pd.DataFrame(x).set_index(keys) for x in (scores, predictions)))


def list_sizes(folder: str, languages: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """How many features each language's published list has, by classifier.

    folder: the study's published artefacts, with feature_counts.json.
    """
    counts = read_json(expand(folder) / "feature_counts.json")
    sizes = {}
    for classifier, name in _LISTS.items():
        by_code = {find(key).code: int(np.sum(layers))
                   for key, layers in counts[name]["per_language_layer"].items()}  # fmt: skip
        sizes[classifier] = {code: by_code[code] for code in languages}
    return sizes
