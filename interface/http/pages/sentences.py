"""Sentences that other parts of the router say in English, in the words of the pages.

The command line and the API show them as they are; a person at a page reads them in their own language. One that is
not listed is shown as it is. Changes when a page can show another refusal or another result of a test.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from interface.http.pages.wording import mark

Translate = Callable[[str], str]

#: What is said (a pattern of the whole sentence), what a page says; groups are carried over by name.
SENTENCES: tuple[tuple[re.Pattern[str], str], ...] = tuple((re.compile(pattern), text) for pattern, text in (
    # a study and its deliveries
    (r"no such study has been received", mark("No such study has been received.")),
    (r"(this study has no such job|no job \d+)", mark("This study has no such delivery.")),
    (r"there is no such (order|decision|change)", mark("This button does not exist any more: load the page again.")),
    (r"a reason is needed", mark("A reason is needed.")),
    (r"an accession number must not be empty", mark("The accession number is missing.")),
    (r"an accession number has at most (?P<n>\d+) .*",
     mark("An accession number has at most %(n)s printable characters and no backslash.")),
    (r"'(?P<it>.*)' is what it is sent under already", mark("The study is sent under %(it)s already.")),
    (r"the platform has something of this study already.*",
     mark("SATUSEHAT has something of this study already: take it back first.")),
    (r"a worker is busy with this study right now.*",
     mark("The router is working on this study at this moment: try again in a moment.")),
    (r"nothing of this study is registered at the platform.*",
     mark("Nothing of this study is registered at SATUSEHAT: stop it instead.")),
    (r"nobody has asked to take this study back.*",
     mark("Nobody has asked to take this study back, or it was confirmed already.")),
    (r"the code is wrong or older than a day", mark("The code is wrong or older than a day.")),
    (r"the second person must be another one.*", mark("The second person must be another one than the first.")),
    (r"a study is taken back by people who are logged in.*",
     mark("A study is taken back by people who are logged in.")),
    (r"only a study that is held or cancelled at every destination can be discarded.*",
     mark("Only a study that is held or stopped at every destination can be discarded: stop it first.")),
    (r"\S+ was not discarded", mark("This study was not discarded.")),
    (r"no (such )?image (of this study is here|in this study)", mark("There is no such image here.")),
    (r"this was never changed here", mark("This was never changed here.")),
    # devices, destinations, tasks
    (r"there is no such destination", mark("There is no such destination.")),
    (r"no such device has called this router", mark("No such device has called this router.")),
    (r"this task is not known any more", mark("This task is not known any more.")),
    (r"too much is being done at once", mark("Too much is being done at once: try again in a moment.")),
    (r"the database .*", mark("The database cannot be reached at this moment.")),
    # accounts
    (r"this needs the right (?P<right>\w+)", mark("This needs the right %(right)s.")),
    (r"a user name has 1 to 64 .*",
     mark("A user name has 1 to 64 of a-z, 0-9, . _ @ - and begins with a letter or digit.")),
    (r"there is a user (?P<name>.*) already", mark("There is a user %(name)s already.")),
    (r"there is no user of this name", mark("There is no user of this name.")),
    (r"this is the last admin.*", mark("This is the last administrator: make another one first.")),
    (r"nobody disables their own account", mark("Nobody disables their own account.")),
    (r"a password needs at least (?P<n>\d+) characters", mark("A password needs at least %(n)s characters.")),
    (r"a password has at most (?P<n>\d+) characters", mark("A password has at most %(n)s characters.")),
    (r"this password is too easy to guess.*",
     mark("This password is too easy to guess: take several words that have nothing to do with you.")),
    (r"the present password is not right", mark("The present password is not right.")),
    (r"the two new passwords differ", mark("The two new passwords differ.")),
    (r"the new password is the old one", mark("The new password is the old one.")),
    (r"too many (tries|logins).*", mark("Too many tries: wait a little.")),
    (r"this account is disabled", mark("This account is disabled.")),
    (r"a key needs a name that says who uses it", mark("A key needs a name that says who uses it.")),
    (r"a key gets some of the rights that its maker has", mark("A key gets some of the rights that its maker has.")),
    (r"this key would have expired already", mark("This key would have expired already.")),
    (r"there is no such key", mark("There is no such key.")),
    # results of tests
    (r"granted", mark("granted")),
    (r"answers", mark("answers")),
    (r"answers \(HTTP (?P<n>\d+)\)", mark("answers (HTTP %(n)s)")),
    (r"through the proxy", mark("through the proxy")),
    (r"not used on this machine", mark("not used on this machine")),
    (r"DNS does not know this name", mark("DNS does not know this name")),
    (r"no connection \((?P<why>.*)\)", mark("no connection (%(why)s)")),
    (r"the device answers", mark("The device answers.")),
    (r"the device cannot be reached", mark("The device cannot be reached.")),
    (r"the device refuses the association", mark("The device refuses the connection.")),
    (r"the device does not do C-ECHO .*", mark("The device does not do C-ECHO.")),
    (r"the connection was lost before the answer", mark("The connection was lost before the answer.")),
    (r"the device answered (?P<code>0x[0-9A-F]{4})", mark("The device answered %(code)s.")),
    (r"enter this router's AE title and address at the device; check the called AE title",
     mark("Enter this router's AE title and address at the device; check the called AE title.")),
    (r"check address, port, network and firewall", mark("Check address, port, network and firewall.")),
    (r"try again", mark("Try again.")),
))
_BOTH = " / "


def in_page_words(sentence: str, translate: Translate, language: str) -> str:
    """Return what somebody reads on a page for a sentence of the router; advice may carry both languages already."""
    for pattern, text in SENTENCES:
        found = pattern.fullmatch(sentence)
        if found is not None:
            return translate(text) % found.groupdict()
    indonesian, both, english = sentence.partition(_BOTH)
    if both and english:
        return indonesian if language == "id" else english
    return sentence
