"""What a source module hands to `build`: texts as found, before any cleaning."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Raw:
    """Texts by language code; `origin` names the files and versions they came from (JSON)."""

    texts: dict[str, list[str]]
    origin: dict[str, Any]
    ids: list[str] | None = None
    aligned: bool = True
