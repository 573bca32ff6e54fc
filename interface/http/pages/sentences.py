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
    # rules
    (r"there is no such rule here; those of router.conf are changed there",
     mark("There is no such rule here; those of router.conf are changed there.")),
    (r"rule (?P<name>.*) stands already: change it there", mark("The rule %(name)s stands already: change it there.")),
    (r"since: expected a day such as .*", mark("Received since: a day such as 2026-11-28 is needed.")),
    # what destinations say when they are tested
    (r"(?P<it>\S+) answers HTTP (?P<n>\d+)", mark("%(it)s answers HTTP %(n)s")),
    (r"(?P<it>.+) takes associations, but no C-ECHO", mark("%(it)s takes associations, but does not do C-ECHO")),
    (r"(?P<it>.+) answers C-ECHO with success", mark("%(it)s answers C-ECHO")),
    (r"(?P<it>.+) answers C-ECHO with (?:.*\()?(?P<code>[^()]+)\)?", mark("%(it)s answers C-ECHO with %(code)s")),
    (r"(?P<it>\S+), while the platform's flag SATUSEHAT_CLIENT_ENABLE is true",
     mark("%(it)s, while SATUSEHAT's flag SATUSEHAT_CLIENT_ENABLE is true")),
    (r"(?P<it>.+) is there", mark("%(it)s is there")),
    (r"(?P<it>.+) is no folder", mark("%(it)s is no folder")),
    (r"(?P<it>.+) can be used", mark("%(it)s can be used")),
    (r"(?P<it>.+), (?P<n>[\d.]+) GB free", mark("%(it)s, %(n)s GB free")),
    # and what goes wrong on the way to them
    (r"DNS does not know (?P<it>\S+)", mark("DNS does not know %(it)s")),
    (r"the proxy does not let us through to (?P<it>\S+)", mark("the proxy does not let us through to %(it)s")),
    (r"TLS with (?P<it>.+?) failed \((?P<why>.*)\)", mark("TLS with %(it)s failed (%(why)s)")),
    (r"TLS with (?P<it>.+?)(?: failed)?: (?P<why>.*)", mark("TLS with %(it)s failed (%(why)s)")),
    (r"TLS: (?P<why>.*)", mark("TLS failed (%(why)s)")),
    (r"(?P<it>.+) (?:does not accept connections|cannot be reached)(?: \(.*\))?",
     mark("%(it)s cannot be reached")),
    (r"(?P<it>.+) did not answer in time", mark("%(it)s did not answer in time")),
    (r"(?P<it>.+) (?:broke the connection|closed the connection|ended the association)",
     mark("%(it)s broke the connection")),
    (r"the reply of (?P<it>.+) (?:is larger than allowed|was cut)",
     mark("the reply of %(it)s is too large or was cut")),
    (r"(?P<it>.+) (?:broke the protocol: .*|sent something that is no answer|sent a PDU that is too long)",
     mark("%(it)s does not speak DICOM as it should")),
    (r"(?P<it>.+) rejects the association: it does not know our AE title .*",
     mark("%(it)s does not know this router's AE title")),
    (r"(?P<it>.+) rejects the association: it does not have this AE title .*",
     mark("%(it)s does not have the AE title that was called")),
    (r"(?P<it>.+) rejects the association: it (?:is busy|has too many associations) .*",
     mark("%(it)s takes no more associations at this moment")),
    (r"(?P<it>.+) rejects the association: .* \((?P<code>[\d/]+)\)", mark("%(it)s rejects the association (%(code)s)")),
    (r"(?P<it>.+) does not let us in", mark("%(it)s rejects the association")),
    (r"http to (?P<it>\S+) would leave the hospital's network(?:: use https)?",
     mark("http to %(it)s would leave the hospital's network: use https")),
    (r"(?P<it>\S+) is refused: use https .*", mark("%(it)s is refused: use https")),
    (r"(?P<it>.+) is no readable file of certificates", mark("%(it)s is no readable file of certificates")),
    (r"(?P<it>.+) or its key cannot be used", mark("%(it)s or its key cannot be used")),
    (r"(?P<it>.+) cannot be read: it holds .*", mark("%(it)s cannot be read")),
    (r"(?P<it>\S+) shows another host key than known_hosts has",
     mark("%(it)s shows another host key than the one in known_hosts")),
    (r"the host key of (?P<it>\S+) is not in known_hosts", mark("the host key of %(it)s is not in known_hosts")),
    (r"(?P<it>\S+) refuses the login of (?P<who>.*)", mark("%(it)s refuses the login of %(who)s")),
    (r"(?P<it>.+) refuses our (?:keys|login)(?: \((?P<why>.*)\))?", mark("%(it)s refuses the login")),
    (r"(?P<it>.+) is not there on (?P<host>\S+)", mark("%(it)s is not there on %(host)s")),
    (r"(?P<it>.+) cannot be written(?: \(.*\))?", mark("%(it)s cannot be written")),
    (r"there is no bucket (?P<it>.*)", mark("there is no bucket %(it)s")),
    (r"(?P<it>.+) cannot be used(?: now)? \((?P<why>.*)\)", mark("%(it)s cannot be used at this moment (%(why)s)")),
    (r"the token service refuses our client id or secret .*",
     mark("the token service refuses the client id or the secret")),
    (r"the token service (?:gives no token .*|answered without a token)", mark("the token service gives no token")),
    (r"the token service answered: (?P<it>.*?)(?:; check client_key, secret_key and url)?",
     mark("the token service answered: %(it)s")),
    (r"the client_key is not enabled for this service: (?P<it>.*); check that .*",
     mark("the client_key is not enabled for this service: %(it)s")),
    (r"(?P<it>.*); a new token was refused too: .*",
     mark("%(it)s; a new token was refused too: check that client_key and organization belong together")),
    (r"(?P<it>.*); blocked before the platform: .*",
     mark("%(it)s; blocked before SATUSEHAT: ask SATUSEHAT to allow this address, or set user_agent")),
    (r"(?P<it>.*); nothing answers there: .*",
     mark("%(it)s; nothing answers there: check url, fhir_pathsuffix and dicom_pathsuffix")),
    (r"(?P<it>.*); redirects are not followed with a token: .*",
     mark("%(it)s; redirects are not followed with a token: check url")),
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
