"""The tokens on which each feature comes near its maximum.

The maximum is known only at the end, yet one pass does: an entry below the bar of the maximum so
far is below the bar of the final one, for maxima only rise. So such entries are dropped as they
come, what is kept is pruned again whenever it grows beyond a limit, and what still remains goes to
disk. At the end everything kept is held against the final maximum: the result is exact.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from langsae.errors import InputError
from langsae.files import digest, publish
from langsae.metrics.token_language import languages_along
from langsae.reducers.base import Reducer, SparseBatch
from langsae.reducers.entries import sorted_rows
from langsae.reducers.span_lengths import text_starts
from langsae.reducers.spill import Spill
from langsae.tensor_file import TensorFile

# A column each in the file, by hook. The order of entries is that of the first four.
COLUMNS = {"feature": "int32", "language": "int8", "example": "int32", "position": "int32",
           "token": "int32", "rule": "int8", "value": "float32"}  # fmt: skip
_RECORD = np.dtype([(name, np.dtype(kind)) for name, kind in COLUMNS.items()])


class ActivatingTokens(Reducer):
    """Every entry whose value is above `bar` times its feature's maximum (over all languages).

    Compared in float64: value > bar * maximum. Padding of the token policy never counts.

    rule: int8 [V], the language of each token id by its text (metrics.token_language), which
    labels every entry beside the language of its document. limit: entries (22 bytes each) held in
    memory; more go to a file in `spill` (None: the system's folder for temporary files). Reading
    and writing take one hook's entries in memory.

    In the file: maximum float32 [H, F] (0 for a dead feature), and for hook h the columns NAME.h of
    its entries, sorted by feature, language, example, position; language and rule count from 0.
    """

    name = "activating_tokens"

    def __init__(
        self,
        header: dict[str, Any],
        hooks: int,
        features: int,
        rule: np.ndarray,
        bar: float = 0.7,
        limit: int = 8_000_000,
        spill: Path | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(header | {"bar": bar, "rule": digest(rule.tolist())}, {})
        if not 0 < bar < 1:
            raise InputError(f"activating tokens: the bar is {bar}; give a share between 0 and 1")
        self.rule, self.bar, self.limit, self.spill = rule, bar, limit, spill
        self.maximum = torch.zeros(hooks, features, device=device)
        self._held: list[list[np.ndarray]] = [[] for _ in range(hooks)]
        self._spilled: list[Spill | None] = [None] * hooks
        self._count = 0  # of entries held in memory

    def update(self, batch: SparseBatch) -> None:
        codes, table = batch.codes.active(), batch.tokens
        kept = ~table.padding[codes.token]
        token, feature, value = codes.token[kept], codes.feature[kept], codes.value[kept].float()
        maximum = self.maximum[batch.hook]
        maximum.scatter_reduce_(0, feature, value, "amax")
        near = value.double() > self.bar * maximum[feature].double()
        token, feature, value = token[near], feature[near], value[near]
        labels = languages_along(
            self.rule[table.token.cpu().numpy()], text_starts(table).cpu().numpy()
        )
        found = np.empty(len(value), dtype=_RECORD)
        found["feature"], found["value"] = feature.cpu().numpy(), value.cpu().numpy()
        for name in ("language", "example", "position", "token"):
            found[name] = getattr(table, name)[token].cpu().numpy()
        found["rule"] = labels[token.cpu().numpy()]
        self._add(batch.hook, found)

    def merge(self, other: "ActivatingTokens") -> None:
        """Add another part of the same collection, of other texts."""
        super().merge(other)  # checks the header
        self._same_size(other.maximum.shape)
        self.maximum = torch.maximum(self.maximum, other.maximum.to(self.maximum.device))
        for hook in range(len(self._held)):
            for part in other._parts(hook):
                self._add(hook, part)

    def entries(self, hook: int) -> dict[str, np.ndarray]:
        """The entries of one hook above the bar of the maximum so far, by column, sorted.

        Raises InputError where a position is there twice.
        """
        parts = [np.zeros(0, _RECORD), *self._parts(hook)]
        whole = np.concatenate(parts)
        keys = [whole[name] for name in list(COLUMNS)[:4]]
        order = sorted_rows(keys)
        keys = np.stack([key[order] for key in keys])
        if bool((keys[:, 1:] == keys[:, :-1]).all(axis=0).any()):
            raise InputError(f"{self.name}: a text came twice; merge only shards without common "
                             "texts")  # fmt: skip
        return {name: whole[name][order] for name in COLUMNS}

    def save(self, path: str | Path) -> None:
        hooks, features = self.maximum.shape
        counts = [sum(map(len, self._parts(hook))) for hook in range(hooks)]
        tensors = {f"{name}.{hook}": (kind, (counts[hook],))
                   for hook in range(hooks) for name, kind in COLUMNS.items()}  # fmt: skip
        tensors["maximum"] = ("float32", (hooks, features))
        about = json.dumps({"reducer": self.name, "header": self.header}, sort_keys=True)
        with publish(path) as part, TensorFile(part, tensors, {"langsae": about}) as file:
            file.put("maximum", self.maximum.cpu().numpy())
            for hook in range(hooks):
                for name, column in self.entries(hook).items():
                    file.put(f"{name}.{hook}", column)

    def restore(self, path: str | Path) -> None:
        saved = SavedActivatingTokens(path)
        super().merge(Reducer(saved.header, {}))  # checks the header
        self._same_size(saved.maximum.shape)
        self.maximum = torch.from_numpy(saved.maximum).to(self.maximum.device)
        self._held = [[] for _ in self._held]
        self._spilled, self._count = [None] * len(self._held), 0
        for hook in range(len(self._held)):
            columns = saved.entries(hook)
            found = np.empty(len(columns["value"]), dtype=_RECORD)
            for name, column in columns.items():
                found[name] = column
            self._add(hook, found)

    def _same_size(self, shape) -> None:
        if tuple(shape) != tuple(self.maximum.shape):
            raise InputError(f"{self.name}: of {list(shape)} hooks and features, not "
                             f"{list(self.maximum.shape)}; collect again")  # fmt: skip

    def _add(self, hook: int, found: np.ndarray) -> None:
        if len(found):
            self._held[hook].append(found)
            self._count += len(found)
        if self._count > self.limit:
            self._shrink()

    def _shrink(self) -> None:
        """Prune what memory holds; if that frees less than half of it, move it to disk."""
        for hook, held in enumerate(self._held):
            if held:
                self._held[hook] = [self._near(hook, np.concatenate(held))]
        self._count = sum(len(part) for held in self._held for part in held)
        if self._count <= self.limit // 2:
            return
        for hook, held in enumerate(self._held):
            for part in held:
                if self._spilled[hook] is None:
                    self._spilled[hook] = Spill(_RECORD, self.spill)
                self._spilled[hook].append(part)
        self._held, self._count = [[] for _ in self._held], 0

    def _near(self, hook: int, found: np.ndarray) -> np.ndarray:
        maximum = self.maximum[hook].double().cpu().numpy()
        return found[found["value"].astype(np.float64) > self.bar * maximum[found["feature"]]]

    def _parts(self, hook: int) -> Iterator[np.ndarray]:
        """The entries of one hook that are above the bar of the maximum so far."""
        spilled = self._spilled[hook]
        for part in (*(spilled.parts() if spilled else ()), *self._held[hook]):
            yield self._near(hook, part)


class SavedActivatingTokens:
    """A saved collection, read one hook at a time.

    header: what it is true of; maximum: float32 [H, F]. Raises InputError for another file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with safe_open(self.path, "np") as file:
                about = json.loads((file.metadata() or {}).get("langsae", "{}"))
                if about.get("reducer") != ActivatingTokens.name:
                    raise InputError(f"{path}: holds '{about.get('reducer')}', not "
                                     f"'{ActivatingTokens.name}'")  # fmt: skip
                self.header, self.maximum = about["header"], file.get_tensor("maximum")
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; run the collecting stage first") from error
        except SafetensorError as error:
            raise InputError(
                f"{path}: not a whole safetensors file ({error}); delete it"
            ) from error

    def entries(self, hook: int) -> dict[str, np.ndarray]:
        """The columns (see COLUMNS) of one hook's entries."""
        with safe_open(self.path, "np") as file:
            return {name: file.get_tensor(f"{name}.{hook}") for name in COLUMNS}
