"""What requests of the API may carry: names, numbers, cursors and bodies, each with its limits.

Nothing that names a patient is ever part of a path or a query. Changes when the API takes something new.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PAGE, MAX_PAGE = 100, 1000


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable text on one line")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
Reason = Annotated[Line, Field(min_length=1, max_length=500, description="Kept with the study and in the audit trail.")]
Accession = Annotated[Line, Field(min_length=1, max_length=64)]
StudyUid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="Study Instance UID")]
JobId = Annotated[int, Path(ge=1, le=2**53)]
RowId = Annotated[int, Path(ge=1, le=2**53)]
Name = Annotated[str, Path(pattern=r"^[a-z0-9_.@-]{1,64}$")]
LaneName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.@:-]{1,64}$", description="Name of a destination")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most entries of one page.")]
AfterNumber = Annotated[int, Query(alias="after", ge=0, le=2**53,
                                   description="`after` of the page before; 0 for none.")]
AfterId = Annotated[str, Query(alias="after", pattern=r"^[a-z0-9._-]{0,100}$",
                               description="`after` of the page before; empty for none.")]


class Body(BaseModel):
    """A request body: unknown fields are mistakes, and are said so."""

    model_config = ConfigDict(extra="forbid", str_max_length=2000, strict=True)


class Why(Body):
    """A change that needs a reason."""

    reason: Reason


class MaybeWhy(Body):
    """A change that may have a reason."""

    reason: Annotated[Line, Field(max_length=500)] = ""


class SearchBody(Body):
    """What to look for; an empty text asks for anything. Days are study dates."""

    text: Annotated[Line, Field(max_length=200, description="Study Instance UID, accession number, Patient ID, or the"
                                " beginnings of words of a name.")] = ""
    modality: Annotated[str, Field(pattern=r"^[A-Z0-9_ ]{0,16}$")] = ""
    caller: Annotated[Line, Field(max_length=16, description="Calling AE title.")] = ""
    state: Annotated[str, Field(
        pattern=r"^(queued|active|deferred|waiting|held|done|cancelled|receiving|not-proven)?$")] = ""
    first_day: Annotated[str, Field(pattern=r"^([0-9]{8})?$", description="YYYYMMDD")] = ""
    last_day: Annotated[str, Field(pattern=r"^([0-9]{8})?$", description="YYYYMMDD")] = ""
    after: Annotated[str, Field(pattern=r"^([0-9]{1,15}-[0-9.]{1,64})?$")] = ""
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = PAGE

    def criteria(self) -> dict[str, Any]:
        """Return what is looked for, without what belongs to the page."""
        return self.model_dump(exclude={"after", "limit"})
