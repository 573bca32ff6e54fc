"""What a classified answer does to the job and to the lane: one table of meaning -> error.

`client` raises what is built here for every answer that is not the one asked for; `internal.worker` maps the error to
the job's outcome. Pure. Changes when an answer is to have other consequences. Source: reliability facts 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NoReturn

from interface.satusehat.answers import Answer, Meaning
from interface.satusehat.oauth2 import SLOW_RETRY_S, no_product_text
from internal.errors import CredentialsRefused, NotFound, Refused, RouterError, Transient, UnknownOutcome

NOT_UNDERSTOOD = "reply-not-understood"

Kind = Literal["absent", "credentials", "refused", "transient", "unknown"]


@dataclass(frozen=True, slots=True)
class Effect:
    """One line: which error, whether all of the lane waits, how long at least (seconds), what to tell people.

    `code` "" takes the answer's: the RuleNumber of a refusal, else its status.
    """

    kind: Kind
    code: str = ""
    blame_lane: bool = True
    retry_s: float | None = None
    advice: str = ""


EFFECTS: Mapping[Meaning, Effect] = MappingProxyType({
    Meaning.SUPPRESSED: Effect("absent"),
    Meaning.ABSENT: Effect("absent"),
    Meaning.NO_PRODUCT: Effect("credentials", "no-api-product"),
    Meaning.DUPLICATE: Effect("refused", "duplicate"),
    Meaning.REFUSED: Effect("refused"),
    Meaning.EXISTS: Effect("refused"),
    Meaning.TOKEN: Effect("transient", retry_s=SLOW_RETRY_S, advice=(
        "; a new token was refused too: check that client_key and organization belong together")),
    Meaning.BLOCKED: Effect("transient", retry_s=SLOW_RETRY_S, advice=(
        "; blocked before the platform: ask SATUSEHAT to allow this address, or set user_agent")),
    Meaning.WRONG_PATH: Effect("transient", retry_s=SLOW_RETRY_S, advice=(
        "; nothing answers there: check url, fhir_pathsuffix and dicom_pathsuffix")),
    Meaning.REDIRECT: Effect("transient", retry_s=SLOW_RETRY_S, advice=(
        "; redirects are not followed with a token: check url")),
    Meaning.THROTTLED: Effect("transient"),
    Meaning.UNAVAILABLE: Effect("transient"),
    Meaning.GATEWAY: Effect("unknown"),
    Meaning.FAULT: Effect("unknown", blame_lane=False),
    # A success by status that is not what was asked for: read, and not believed.
    Meaning.UNREADABLE: Effect("unknown", NOT_UNDERSTOOD, blame_lane=False),
    Meaning.OK: Effect("unknown", NOT_UNDERSTOOD, blame_lane=False),
})


def build_error(answer: Answer) -> RouterError:
    """Return the error that `answer` stands for where it is not the answer asked for."""
    effect = EFFECTS[answer.meaning]
    text = f"{answer.text}{effect.advice}"
    if effect.kind == "absent":
        return NotFound(text)
    if effect.kind == "credentials":
        return CredentialsRefused(no_product_text(answer), code=effect.code)
    if effect.kind == "refused":
        return Refused(text, code=effect.code or answer.code, status=answer.status)
    if effect.code == NOT_UNDERSTOOD:
        return not_understood(f"the answer could not be understood ({answer.body.family}): {text}")
    error = UnknownOutcome if effect.kind == "unknown" else Transient
    return error(text, code=effect.code or f"http-{answer.status}", blame_lane=effect.blame_lane,
                 retry_after_s=answer.retry_after_s or effect.retry_s)


def raise_for(answer: Answer) -> NoReturn:
    """Raise `build_error(answer)`."""
    raise build_error(answer)


def not_understood(text: str) -> UnknownOutcome:
    """Return the error for a success by status whose body does not say that it is one."""
    return UnknownOutcome(text, code=NOT_UNDERSTOOD, blame_lane=False)
