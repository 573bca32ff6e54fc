"""What a condition can look at: one received instance, its header and how it came.

Imports elements, model, paths. Index fields are answered without opening the file; the rest of the header is read
when the first condition asks for it, once. Changes when conditions can look at something new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final

from internal import scan
from internal.elements import DataSet
from internal.errors import NotDicom
from internal.model import Arrival, Header
from internal.rules.failures import EditFailed
from internal.rules.paths import Path

_MAX_TEXTS: Final = 1000


@dataclass(slots=True)
class Facts:
    """One instance as rules see it. `read` returns its data set, None where the bytes are no longer here.

    `zone` is the hospital's time zone: the time of day is that of the arrival there.
    """

    header: Header
    arrival: Arrival
    read: Callable[[], DataSet | None]
    zone: tzinfo = UTC
    _dataset: DataSet | None = None
    _is_read: bool = False
    _texts: dict[str, list[str]] = field(default_factory=dict)

    @property
    def dataset(self) -> DataSet | None:
        """Return the data set as received."""
        if not self._is_read:
            self._is_read, self._dataset = True, self.read()
        return self._dataset

    @property
    def minute_of_day(self) -> int:
        """Return when it arrived, in minutes after midnight in the hospital's zone."""
        arrived = datetime.fromtimestamp(self.arrival.arrived_at / 1000, self.zone)
        return arrived.hour * 60 + arrived.minute

    def texts(self, path: Path) -> list[str]:
        """Return the values of an attribute, each of several as its own text, empty ones left out."""
        known = self._texts.get(path.text)
        if known is None:
            known = self._texts[path.text] = [one for one in self._read_texts(path) if one][:_MAX_TEXTS]
        return known

    def is_present(self, path: Path) -> bool:
        """Return whether an attribute has a value that is not empty; also one that is no text."""
        if self.texts(path):
            return True
        return self.dataset is not None and not _is_index(path) and path.is_present(self.dataset)

    def _read_texts(self, path: Path) -> list[str]:
        if _is_index(path):
            value = getattr(self.header, scan.FIELDS[path.tag])
            return list(value) if isinstance(value, tuple) else _split(value)
        if self.dataset is None:
            return []
        try:
            return [one for text in path.texts(self.dataset) for one in _split(text)]
        except NotDicom as error:
            raise EditFailed(f"{path.text} cannot be read: {error}") from None


def _is_index(path: Path) -> bool:
    return path.is_top and path.tag in scan.FIELDS


def _split(text: str) -> list[str]:
    return [part.strip(" ") for part in text.split("\\")]
