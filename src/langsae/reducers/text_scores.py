"""How much of each text the features on each language's list account for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from langsae.errors import InputError
from langsae.reducers.base import Reducer, SparseBatch, exact

# Keeps a feature that only ever had one value from a division by zero (sae_lape, "sae-min-max").
_SPAN = 1e-6


@dataclass(frozen=True)
class FeatureLists:
    """The listed features of one hook point.

    features: int64 [J], ascending; member: bool [J, L], on which languages' lists each is;
    minimum, maximum: float64 [J], of its activations where it was identified.
    """

    features: Tensor
    member: Tensor
    minimum: Tensor | None = None
    maximum: Tensor | None = None

    def __post_init__(self) -> None:
        if not bool((self.features.diff() > 0).all()):
            raise InputError("the listed features of a hook point must be distinct and ascending")
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and len(value) != len(self.features):
                raise InputError(f"{len(self.features)} listed features, {len(value)} {field.name}")

    def to(self, device: str | torch.device) -> "FeatureLists":
        """A copy on `device`."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in given.items() if v is not None})


class _ListScores(Reducer):
    """Scores [S, L] of texts: of all languages in their order, each language's in theirs.

    texts: number of texts per language of the collection; lists: by index of the hook point. What
    the collection has at other hook points is not looked at.
    """

    dtypes: ClassVar[dict[str, torch.dtype]]  # of the states

    def __init__(
        self,
        header: dict[str, Any],
        texts: Sequence[int],
        lists: Mapping[int, FeatureLists],
        device: str = "cpu",
    ) -> None:
        widths = {entry.member.shape[1] for entry in lists.values()}
        if len(widths) != 1:
            raise InputError("no feature is on any language's list; identify with a lower bar")
        shape = (sum(texts), widths.pop())
        states = {key: torch.zeros(shape, dtype=d, device=device) for key, d in self.dtypes.items()}
        super().__init__(header, states)
        self.lists = {hook: entry.to(device) for hook, entry in lists.items()}
        ends = torch.tensor(texts, device=device).cumsum(0)
        self._first = torch.cat([ends.new_zeros(1), ends[:-1]])

    def rows(self, batch: SparseBatch) -> Tensor:
        """int64 [N]: the row of the text each position belongs to."""
        return self._first[batch.tokens.language] + batch.tokens.example


class TextScores(_ListScores):
    """What SAE features say of each text's language.

    hits: int64 [S, L], the codes that the SAEs yield on each list's features, over all hook points
    (of a TopK SAE all slots count, as in `LapeCounts`); scaled: float64 [S, L], the same codes,
    each as (value - minimum) / (maximum - minimum + 1e-6), which is not clipped.
    """

    name = "text_scores"
    dtypes: ClassVar = {"hits": torch.int64, "scaled": torch.float64}
    grids: ClassVar = {"scaled": 2.0**-24}  # exact up to 5e8

    def update(self, batch: SparseBatch) -> None:
        if batch.hook not in self.lists:
            return
        lists, codes = self.lists[batch.hook], batch.codes
        place = torch.searchsorted(lists.features, codes.feature)
        place.clamp_(max=len(lists.features) - 1)
        listed = lists.features[place] == codes.feature
        place, value = place[listed], codes.value[listed].double()
        text, member = self.rows(batch)[codes.token[listed]], lists.member[place]
        self.state["hits"].index_add_(0, text, member.long())
        span = lists.maximum[place] - lists.minimum[place] + _SPAN
        scaled = exact((value - lists.minimum[place]) / span, self.grids["scaled"])
        self.state["scaled"].index_add_(0, text, scaled[:, None] * member)


class NeuronScores(_ListScores):
    """What neurons say of it: the hook points' own vectors, of which no codes are made.

    hits: int64 [S, L], the (token, neuron) pairs with an activation above 0.
    """

    name = "neuron_scores"
    dtypes: ClassVar = {"hits": torch.int64}

    def update(self, batch: SparseBatch) -> None:
        if batch.hook not in self.lists:
            return
        lists = self.lists[batch.hook]
        positive = (batch.vectors[:, lists.features] > 0).float()
        # float32 counts are exact: there are far fewer than 2**24 neurons
        hits = (positive @ lists.member.float()).long()
        self.state["hits"].index_add_(0, self.rows(batch), hits)
