"""Where pictures came from, and what their licences ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

FREE = "cc0-1.0"  # a licence that asks for nothing
HUB_LICENCES = {  # those that ask for something, by their names on the Hub
    *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
    *("cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"),
    *("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "odc-by", "odbl"),
    *("gpl-2.0", "gpl-3.0", "ofl-1.1"),
}


@dataclass(frozen=True)
class Source:
    """Where the pictures came from; what their licence asks to be said."""

    name: str
    author: str
    licence: str
    url: str
    note: str = ""  # what was done to the pictures before training

    @property
    def credit(self) -> str:
        """Name, author and licence, as Markdown."""
        return f"[{self.name}]({self.url}) by {self.author}, {self.licence}"


def licence_id(sources: Iterable[Source]) -> str:
    """As the Hub names the licence of all sources together.

    "other" where several ask for something, or one that the Hub has no name for.
    """
    asking = _asking(sources)
    if not asking:
        return FREE
    return asking.pop() if len(asking) == 1 and asking <= HUB_LICENCES else "other"


def attribution_is_enough(sources: Iterable[Source]) -> bool:
    """Whether the licences of all sources ask for nothing but to name the authors."""
    return all(re.fullmatch(r"cc-by-\d\.\d", licence) for licence in _asking(sources))


def _asking(sources: Iterable[Source]) -> set[str]:
    """The licences that ask for something, spelled as on the Hub."""
    names = [name for source in sources for name in source.licence.split(",")]
    spelled = {re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-") for name in names}
    return {licence for licence in spelled if not licence.startswith("cc0")}
