"""Words of the pages that depend on a code: states, causes in page language, events, stages, who acts.

Texts are msgids in English; `rendering` translates them. Causes come from interface/explain.py, where commands are
named; on a page they are buttons. Changes when a code is added or a button is renamed.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from markupsafe import Markup, escape

from interface.explain import explain
from internal.events import EventRow
from internal.job_list import NOT_PROVEN
from internal.model import ItemState
from internal.overview import NOWHERE, RECEIVING
from internal.states import State

Translate = Callable[[str], str]


def mark(text: str) -> str:
    """Mark a text for translation; it is translated where it is shown."""
    return text


def marks(one: str, many: str) -> tuple[str, str]:
    """Mark a text for translation that depends on a number."""
    return one, many


#: What a study or job shows: class of its chip, words.
OUTCOMES: dict[str, tuple[str, str]] = {
    State.QUEUED: ("move", mark("In the queue")),
    State.ACTIVE: ("move", mark("Being sent")),
    State.DEFERRED: ("wait", mark("Trying again")),
    State.WAITING: ("wait", mark("Waiting")),
    State.HELD: ("held", mark("Held")),
    State.DONE: ("ok", mark("Delivered")),
    NOT_PROVEN: ("ok", mark("Delivered, not proven")),
    State.CANCELLED: ("", mark("Cancelled")),
    RECEIVING: ("move", mark("Still coming in")),
    NOWHERE: ("", mark("Not routed")),
}

WHO: dict[str, str] = {
    "radiographer": mark("Radiographer"), "SIMRS": mark("SIMRS"), "IT": mark("IT"), "platform": mark("SATUSEHAT"),
    "router": mark("The router itself"),
}

#: Kinds of jobs other than deliveries.
KINDS: dict[str, str] = {
    "deliver": mark("Delivery"), "withdraw": mark("Taking back"), "commit": mark("Storage commitment"),
    "notify": mark("Notice to the hospital system"), "mroc": mark("Copy for the MROC client"),
}

STAGES: dict[str, str] = {
    "received": mark("Received"), "order": mark("Order"), "registered": mark("Registration"),
    "sent": mark("Images"), "confirmed": mark("Confirmation"),
}

#: Buttons that stand for commands named in explanations.
BUTTONS: dict[str, str] = {
    "retry": mark("Try again"), "show": mark("this page"), "same-patient": mark("It is the same patient"),
    "accept-partial": mark("Accept without these images"), "devices": mark("Devices"), "cancel": mark("Stop"),
    "lane": mark("Resume"), "withdraw": mark("Take back"), "discard": mark("Discard"), "bad": mark("set-aside images"),
}

EVENTS: dict[str, str] = {
    "job-planned": mark("Delivery planned"),
    "job-reopened": mark("New images came: the delivery goes on"),
    "job-held": mark("Held: a person has to decide"),
    "job-done": mark("Everything is confirmed"),
    "images-missing": mark("Images that were confirmed are missing at SATUSEHAT: they are sent again"),
    "job-deferred": mark("Did not work: it is tried again"),
    "job-waiting": mark("Waiting"),
    "job-queued": mark("In the queue"),
    "lease-lost": mark("The router was interrupted here and goes on"),
    "order-search": mark("Looking for the order at SATUSEHAT"),
    "order-found": mark("Order and patient found"),
    "several-accessions": mark("Several accession numbers: one ImagingStudy names all"),
    "imaging-study-found": mark("ImagingStudy found at SATUSEHAT"),
    "post": mark("Registering the ImagingStudy"),
    "posted": mark("ImagingStudy registered"),
    "put": mark("ImagingStudy updated"),
    "reply-lost": mark("No answer to the registration: looking before trying again"),
    "push": mark("Sending images"),
    "sent": mark("All images sent"),
    "skipped": mark("Some images are kept here (skip_sop_classes)"),
    "instance-refused": mark("SATUSEHAT refused an image"),
    "withdrawn": mark("Taken back: the ImagingStudy stands as entered in error"),
    "commitment-reported": mark("Storage commitment answered"),
    "mroc-sent": mark("Copies given to the MROC client"),
    "partial-accepted": mark("A person lets the study go without some images"),
    "person-retry": mark("A person asked to try again"),
    "person-wake": mark("A person asked to send it now"),
    "person-reopen": mark("A person asked to send it again"),
    "person-cancel": mark("A person stopped it"),
    "person-give_up": mark("A person gave it up"),
    "decided-patient": mark("A person confirmed that it is the same patient"),
    "decided-accession": mark("The accession number was corrected"),
    "decided-discard": mark("Discarded: the images are removed in 30 days"),
    "decided-withdraw": mark("Taking back was asked for"),
    "discard-undone": mark("Brought back"),
    "lane-alert": mark("The destination needs attention"),
    "job-cancelled": mark("Stopped"),
    "escalated": mark("Waiting for long: a person should look"),
    "routed-nowhere": mark("By the rules this study goes nowhere"),
    "late-images": mark("Images came after the study was delivered"),
    "metadata-unparsed": mark("The header of an image could not be read in full"),
    "bytes-damaged": mark("Images on the disk are damaged"),
    "verified": mark("Compared with what the destination holds"),
    "modality-replaced": mark("The device gives a modality that SATUSEHAT does not know: another one was sent"),
    "modality-from-sop-class": mark("The device gives no modality: it was taken from the kind of image"),
    "modality-unknown": mark("The modality is not known: sent as OT"),
    "device-clock": mark("The device's clock is wrong: this date was left out"),
    "date-before-floor": mark("A date before those that SATUSEHAT takes was left out"),
    "time-left-out": mark("A time that is none was left out: only the date is sent"),
    "number-left-out": mark("A number that is none was left out"),
    "purged": mark("The images were removed from this router; the records stay"),
}

#: What stands in the audit trail, by its code.
ACTIONS: dict[str, str] = {
    "patient.view": mark("Looked at a patient's data"),
    "patient.list": mark("Looked at a list of patients"),
    "patient.download": mark("Took a patient's data out as a file"),
    "study.retry": mark("Asked to try again"),
    "study.resend": mark("Asked to check again and send what is missing"),
    "study.send-now": mark("Asked to send now"),
    "study.urgent": mark("Asked to send first"),
    "study.cancel": mark("Stopped a delivery"),
    "study.accept-partial": mark("Let a study go without some images"),
    "study.accession": mark("Corrected an accession number"),
    "study.same-patient": mark("Decided that it is the same patient"),
    "study.discard": mark("Discarded a study"),
    "study.undo-discard": mark("Brought a study back"),
    "study.discard-undo": mark("Brought a study back"),
    "study.withdraw": mark("Asked to take a study back"),
    "study.withdraw-ask": mark("Asked to take a study back"),
    "study.withdraw-confirm": mark("Confirmed that a study is taken back"),
    "study.verify": mark("Compared a study with its destination"),
    "lane.pause": mark("Paused a destination"),
    "lane.resume": mark("Resumed a destination"),
    "lane.test": mark("Tested a destination"),
    "lane.set": mark("Changed a destination's settings"),
    "device.admit": mark("Admitted a device"),
    "device.hold": mark("Holds what a device sends"),
    "device.refuse": mark("Refused a device"),
    "device.forget": mark("Forgot the decision about a device"),
    "device.decide": mark("Decided about a device"),
    "device.echo": mark("Asked a device with C-ECHO"),
    "settings.change": mark("Changed a setting"),
    "settings.rollback": mark("Brought a setting back"),
    "alias.set": mark("Set an accession number that is always replaced"),
    "alias.remove": mark("Removed an accession number that is always replaced"),
    "order.came": mark("An order came from the hospital system"),
    "alert.acknowledge": mark("Took note of an alert"),
    "alert.test": mark("Tested an alert"),
    "user.add": mark("Added a user"),
    "user.role": mark("Changed a user's role"),
    "user.disable": mark("Disabled a user"),
    "user.enable": mark("Enabled a user"),
    "user.reset-password": mark("Gave a user a new password"),
    "key.issue": mark("Made an API key"),
    "key.revoke": mark("Revoked an API key"),
    "login": mark("Logged in"),
    "login.failed": mark("Tried to log in, in vain"),
    "logout": mark("Logged out"),
    "password.change": mark("Changed the own password"),
    "pseudonym.reveal": mark("Revealed whose pseudonym it is"),
    "audit.export": mark("Took the audit trail out as a file"),
}

#: What becomes of one image of a delivery: class of its chip, words.
ITEMS: dict[str, tuple[str, str]] = {
    ItemState.DUE: ("", mark("Not sent yet")),
    ItemState.SENT: ("move", mark("Sent, no answer yet")),
    ItemState.STORED: ("ok", mark("Stored there")),
    ItemState.UNVERIFIED: ("wait", mark("Exists there; whether it is the same is not known")),
    ItemState.UNREAD: ("wait", mark("Accepted; the answer could not be read")),
    ItemState.REFUSED: ("held", mark("Refused")),
    ItemState.SKIPPED: ("", mark("Kept here by a setting")),
    ItemState.CONFLICT: ("held", mark("Exists there with other content")),
    ItemState.WAIVED: ("", mark("Left out by a person")),
}

#: What is compared of two sides of a study.
ELEMENTS: dict[str, str] = {
    "name": mark("Name"), "birth_date": mark("Date of birth"), "sex": mark("Sex"), "mrn": mark("Medical record number"),
}

SEXES: dict[str, str] = {"M": mark("Male"), "MALE": mark("Male"), "F": mark("Female"), "FEMALE": mark("Female")}

#: What an action did, by the code that its redirect carries: class, one, many.
NOTICES: dict[str, tuple[str, tuple[str, str]]] = {
    "retry": ("ok", marks("%(num)s delivery is tried again.",
        "%(num)s deliveries are tried again.")),
    "resend": ("ok", marks("%(num)s delivery is checked again.",
        "%(num)s deliveries are checked again.")),
    "cancel": ("ok", marks("%(num)s delivery was stopped; the images are kept.",
        "%(num)s deliveries were stopped; the images are kept.")),
    "urgent": ("ok", marks("%(num)s delivery goes first now.",
        "%(num)s deliveries go first now.")),
    "send-now": ("ok", marks("%(num)s study is sent without waiting.",
        "%(num)s studies are sent without waiting.")),
    "accept-partial": ("ok", marks("%(num)s delivery goes on without these images.",
        "%(num)s deliveries go on without these images.")),
    "accession": ("ok", marks("The accession number was corrected; the order is looked for.",
        "The accession number was corrected; the order is looked for.")),
    "same-patient": ("ok", marks("Written down: it is the same patient.",
        "Written down: same patient.")),
    "discard": ("ok", marks("The study was discarded.",
        "The study was discarded.")),
    "undo-discard": ("ok", marks("The study is back. Try again sends it.",
        "The studies are back.")),
    "withdrawn": ("ok", marks("The study is taken back.",
        "The study is taken back.")),
    "nothing": ("wait", marks("Nothing could be done: the state has changed meanwhile.",
        "Nothing could be done: the state has changed meanwhile.")),
    "none-picked": ("wait", marks("Nothing was selected.",
        "Nothing was selected.")),
    "paused": ("ok", marks("The destination is paused.",
        "The destination is paused.")),
    "resumed": ("ok", marks("The destination goes on.",
        "The destination goes on.")),
    "device": ("ok", marks("The decision about %(num)s device holds now.",
        "The decision about %(num)s devices holds now.")),
    "brought-back": ("ok", marks("This is in force again.",
        "This is in force again.")),
    "user": ("ok", marks("The account was changed.",
        "The account was changed.")),
    "rule": ("ok", marks("The rules were changed; they are in force within seconds.",
        "The rules were changed; they are in force within seconds.")),
    "key-revoked": ("ok", marks("The key is worth nothing any more.",
        "The key is worth nothing any more.")),
}

_COMMAND = re.compile(r"`([^`]{1,80})`")


def outcome_class(outcome: str) -> str:
    """Return the CSS class of a state's chip."""
    return OUTCOMES.get(outcome, ("", ""))[0]


def outcome_text(outcome: str) -> str:
    """Return the msgid of a state."""
    return OUTCOMES.get(outcome, ("", outcome))[1]


def in_pages(text: str, translate: Translate) -> Markup:
    """Return a sentence of explain.py for a page: commands become the words on their buttons, others stay as code."""
    pieces = Markup()
    for number, piece in enumerate(_COMMAND.split(text)):
        button = BUTTONS.get(piece.split()[0] if piece.split() else "") if number % 2 else None
        if number % 2 == 0:
            pieces += escape(piece)
        elif button:
            pieces += Markup("<b>{}</b>").format(translate(button))
        else:
            pieces += Markup("<code>{}</code>").format(piece)
    return pieces


def cause(code: str, reason: str, language: str) -> str:
    """Return why, in one sentence: the explanation of the code, else the reason as it was given."""
    one = explain(code)
    return (one.meaning_en if language == "en" else one.meaning_id) or reason


def next_step(code: str, language: str) -> str:
    """Return what to do, "" if nothing is known."""
    one = explain(code)
    return one.next_en if language == "en" else one.next_id


def who_acts(code: str) -> str:
    """Return the msgid of who has to act."""
    return WHO.get(explain(code).who, explain(code).who)


def event_text(event: EventRow) -> str:
    """Return the msgid of an event; one without words of its own speaks for itself."""
    return EVENTS.get(event.code, event.text)
