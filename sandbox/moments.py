"""FHIR dates and times as text: are they well formed, do they exist, are they too old or not yet.

Below the validation. Imports the standard library. Changes when the platform's date rules change.
Source: FHIR R4 datatypes (date, dateTime, instant), fact sheet satusehat.md section 2.6.
"""

from __future__ import annotations

import datetime
import re

_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?\Z", re.ASCII)
_FULL = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-](0\d|1[0-4]):[0-5]\d)\Z", re.ASCII)
# A date without a time is a date in Indonesia; its easternmost zone (WIT) sees each day first.
_EASTERNMOST = datetime.timezone(datetime.timedelta(hours=9))


def parse_moment(text: str, type_name: str) -> datetime.datetime | None:
    """The first instant meant by a FHIR `date`, `dateTime` or `instant`; None when it is malformed or impossible."""
    try:
        if _FULL.match(text):
            return None if type_name == "date" else datetime.datetime.fromisoformat(text)
        if type_name == "instant" or not _DATE.match(text):
            return None
        day = datetime.date.fromisoformat((text + "-01-01")[:10])
        return datetime.datetime(day.year, day.month, day.day, tzinfo=_EASTERNMOST)
    except ValueError:
        return None


def is_future(moment: datetime.datetime) -> bool:
    """True when the moment has not come yet."""
    return moment > datetime.datetime.now(datetime.UTC)


def is_before(text: str, floor: datetime.date) -> bool:
    """True when the date in `text`, as precise as it is, lies before `floor`."""
    date = text[:10]
    return date < floor.isoformat()[: len(date)]
