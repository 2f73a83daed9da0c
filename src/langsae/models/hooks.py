"""Hook points: where in a language model an SAE reads."""

import re
from dataclasses import dataclass

from langsae.errors import InputError

# In the order a forward pass reaches them within one block.
SITES = ("resid_pre", "mlp_act", "mlp_out", "resid_post")

_SPELLINGS = (
    (re.compile(r"(resid_pre|mlp_act|mlp_out|resid_post)\.(\d+)"), lambda m: (m[1], m[2])),
    # TransformerLens and sae-lens
    (re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_post|mlp_out)"), lambda m: (m[2], m[1])),
    # sparsify names the module whose output it reads
    (re.compile(r"layers\.(\d+)\.mlp\.act_fn"), lambda m: ("mlp_act", m[1])),
    (re.compile(r"layers\.(\d+)\.mlp"), lambda m: ("mlp_out", m[1])),
    (re.compile(r"layers\.(\d+)"), lambda m: ("resid_post", m[1])),
)


@dataclass(frozen=True)
class HookPoint:
    """A site of one block (0-based layer): written `resid_post.9`."""

    site: str
    layer: int

    def __str__(self) -> str:
        return f"{self.site}.{self.layer}"

    @property
    def order(self) -> tuple[int, int]:
        """Sorts hook points in the order in which a forward pass reaches them."""
        return self.layer, SITES.index(self.site)

    @classmethod
    def parse(cls, text: str) -> "HookPoint":
        """From our spelling, TransformerLens' `blocks.9.hook_resid_post`, sparsify's `layers.9`."""
        for pattern, parts in _SPELLINGS:
            if match := pattern.fullmatch(text):
                site, layer = parts(match)
                return cls(site, int(layer))
        raise InputError(
            f"'{text}' is not a hook point; write one like resid_post.9, "
            "blocks.9.hook_resid_pre or layers.9.mlp"
        )
