"""What an injected fault did, as rows of a table."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Row:
    """One kind of fault in one place.

    injected: how often; survived: how often the result afterwards, from the same command once the
    fault was gone, was the right one to the byte, or bad input was refused and nothing was left;
    wrong: results that differ without a word. message: what was said, for instance.
    """

    fault: str
    place: str
    injected: int = 0
    survived: int = 0
    wrong: int = 0
    message: str = ""

    def add(self, right: bool, loud: bool, message: str = "") -> None:
        """One more fault: whether all was right after it, and whether it had been told."""
        self.injected += 1
        self.survived += right
        self.wrong += not right and not loud
        self.message = message or self.message


def table(rows: Iterable[Row]) -> str:
    """GitHub's Markdown; numbers to the right."""
    lines = [
        "| fault | where | injected | survived | silently wrong | message |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        said = row.message.replace("|", "\\|").replace("\n", " ").strip()
        cells = (row.fault, row.place, row.injected, row.survived, row.wrong, said)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def last_line(text: str) -> str:
    """The last line that says something; progress bars write over theirs."""
    lines = [line.strip() for part in text.split("\n") for line in part.split("\r")]
    return next((line for line in reversed(lines) if line), "")
