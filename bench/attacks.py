"""The attacks that tests carry out, by the number of the threat list, and the table of docs/security.md.

A test says which it stands for with `@pytest.mark.attack("S37")`; `python -m bench.record --attacks JUNIT.xml` writes
the table from what ran. Changes when an attack is added. Source: OWASP API Security 2023, ASVS, IEC 81001-5-1 5.7.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

#: number: (attack, what happens)
ATTACKS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "S1": ("UIDs and titles that are paths", "refused, or only data: names of files are our own"),
    "S2": ("PDU lengths of 4 GB before and in an association", "closed or aborted at once; memory flat"),
    "S4": ("endless command fragments and requests that are no image", "aborted at 64 KB; memory flat"),
    "S5": ("endless data sets, a full disk", "0xA700 at the size limit and below the floor of free space"),
    "S6": ("sockets that send a byte, or one now and then", "closed in 10 s, whatever their number; others are served"),
    "S7": ("storms of connections, thousands of descriptors", "no thread or descriptor stays; SIGTERM ends in time"),
    "S8": ("floods of associations, from one address and many", "a burst of 200 is accepted; above the caps: refused"),
    "S9": ("TLS handshakes that stall", "others are served; closed in time; SIGTERM ends in time"),
    "S10": ("old TLS, weak suites, strangers' certificates", "refused"),
    "S11": ("a calling AE title from another address", "another caller: held or refused where so configured"),
    "S13": ("malformed A-ASSOCIATE, any first bytes", "A-ABORT or closed; memory flat"),
    "S14": ("messages out of order, in unknown contexts, with lying flags", "this association is aborted, no other"),
    "S15": ("floods of N-ACTION and N-EVENT-REPORT, from strangers too", "bounded, one after another; refused"),
    "S19": ("hundreds of nested sequences of defined length", "not followed beyond 32 levels"),
    "S20": ("up to 100,000 nested sequences of undefined length", "refused at 32 levels"),
    "S21": ("deflated bombs, many at once", "inflated up to 16 MB, one at a time, or kept as they are"),
    "S23": ("lengths and value representations that lie", "read within bounds or set aside; nothing else is raised"),
    "S24": ("compressed pixels that claim another size, or take for ever", "not decoded; its child is ended"),
    "S28": ("archives with paths, links, bombs, a million entries", "regular files within bounds only"),
    "S29": ("DICOMDIR that names files elsewhere", "never followed: images are found by their content"),
    "S32": ("every route and method without credentials, with each role, with each key", "401 or 403"),
    "S33": ("default, blank or weak password; open to the network without TLS", "none exists; the start is refused"),
    "S34": ("ids of other studies, people and callers", "404; an answer kept for one is never given to another"),
    "S35": ("more rights by extra form fields, by one's own keys, by a stale role", "ignored or refused"),
    "S36": ("1,000 guessed passwords", "a growing pause; the owner elsewhere still comes in; answers alike"),
    "S37": ("huge, lying, slow or endless requests; thousands of sockets", "413, 400, 408 or closed; others go on"),
    "S38": ("compressed and deeply nested bodies", "415, 400"),
    "S40": ("a server address that leads to other services or redirects there", "refused, never followed"),
    "S41": ("UIDs that lead to other addresses, here or at the platform", "one piece of the path, whatever is in it"),
    "S42": ("file names and ids as options of other programs", "no other program is started with outside data"),
    "S43": ("SQL in names, searches and keys", "bound parameters; rows unchanged"),
    "S44": ("wildcards and patterns in searches", "letters like others; at most 200"),
    "S45": ("pages of a thousand million, from -1 on, with a thousand fields", "422"),
    "S47": ("pictures of a million pixels a side, lists of frames, thousands of ranges", "422; the whole or nothing"),
    "S48": ("markup in everything that pages show", "escaped; no inline script may run"),
    "S49": ("forms and JSON sent by pages of other sites", "403"),
    "S50": ("session fixation, stolen or old cookies", "new token at login; flags set; ended ones are worth nothing"),
    "S52": ("other sites reading answers; foreign Host headers; redirects to elsewhere", "refused"),
    "S53": ("pages in frames, sniffed types, leaking referrers", "headers on every answer, failures too"),
    "S55": ("line breaks and control characters in what is logged", "one line each"),
    "S56": ("event streams without login", "401"),
    "S57": ("documentation, metrics, stack traces in the open", "401; a failure shows a number only"),
    "S58": ("secrets in logs, files, database and exceptions", "none"),
    "S59": ("patient data in logs, URLs and audit messages", "none"),
    "S60": ("secrets in the process list and in printed settings", "none"),
    "S61": ("unverified TLS, plain HTTP for secrets", "refused"),
    "S62": ("settings that name other settings, variables or files", "a value is only a value"),
    "S64": ("the service with more rights than it needs", "the unit takes them away"),
    "S65": ("dependencies that somebody has exchanged", "installed by hash only; none is unpinned"),
    "S66": ("pickle, eval, exec, mktemp in our code", "none"),
    "S67": ("keys, certificates or logs in the repository", "none"),
    "S68": ("audit rows changed, removed, put in, or cut off", "`audit verify` names them"),
    "S69": ("changes by people that leave no trace", "one audit entry each"),
})  # fmt: skip


def attack_table(texts: Iterable[str], stamp: str) -> str:
    """Return the Markdown table of what JUnit files say; N counts attacks with at least one test and no failure."""
    passed: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for text in texts:
        for case in ET.fromstring(text).iter("testcase"):
            bad = any(child.tag in ("failure", "error") for child in case)
            skipped = any(child.tag == "skipped" for child in case)
            for number in {p.get("value", "") for p in case.iter("property") if p.get("name") == "attack"}:
                failed[number] += bad
                passed[number] += not bad and not skipped
    held = [number for number in ATTACKS if passed[number] and not failed[number]]
    lines = [stamp, "", f"**{len(held)} of {len(ATTACKS)}** attacks held.", "",
             "| | attack | what happens | tests |", "| --- | --- | --- | --- |"]
    counts = {number: f"{passed[number]}" + f", {failed[number]} FAILED" * bool(failed[number]) for number in ATTACKS}
    lines += [f"| {number} | {attack} | {answer} | {counts[number]} |"
              for number, (attack, answer) in ATTACKS.items()]
    return "\n".join(lines)
