"""docs/conformance.md against the running receiver: contexts, syntaxes, names, rejections, statuses, security."""

from __future__ import annotations

import re
import ssl
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary

from interface.dimse import commitment, commitment_report, messages, tls
from internal import commitments
from tests.contract.dimse.role import ROOT, Role
from tests.contract.dimse.wire import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Wire,
    associate_rq,
    command,
    context,
    data_set,
    element,
    even,
    p_data,
    pdv,
)

PAGE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
PROPOSED = context(1, CT, EXPLICIT) + context(3, VERIFICATION, EXPLICIT)


def table(name: str) -> list[list[str]]:
    """The rows of one marked table without its head."""
    body = PAGE.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.strip().splitlines()]
    assert len(rows) > 2, name
    return rows[2:]


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> Role:  # type: ignore[misc]
    made = Role(tmp_path_factory.mktemp("conformance") / "spool", commitment_callers=["ASKS"], max_pdu_bytes=131_072,
                unknown_callers="accept", max_object_bytes=100_000)  # fmt: skip
    yield made
    assert made.stop() == 0


def test_every_listed_syntax_is_ranked_as_the_page_says(role: Role) -> None:
    ranks = {uid: rank for uid, _, rank in table("syntaxes")}
    with Wire(role.port) as wire:
        results = wire.associate(*(context(2 * n + 1, CT, uid) for n, uid in enumerate(ranks)))
    for number, (uid, rank) in enumerate(ranks.items()):
        result, chosen = results[2 * number + 1]
        assert (result, chosen if result == 0 else uid) == (4 if rank == "refused" else 0, uid)
    usable = [(int(rank), uid) for uid, rank in ranks.items() if rank != "refused"]
    for rank, uid in usable:
        worse = [other for other_rank, other in usable if other_rank > rank]
        with Wire(role.port) as wire:
            assert wire.associate(context(1, CT, *worse, uid))[1] == (0, uid)


def test_every_syntax_of_the_standard_is_listed() -> None:
    """By the dictionary of another library, and what the standard has added since."""
    ranks = {uid: rank for uid, _, rank in table("syntaxes")}
    known = {uid for uid, (_, kind, *_) in UID_dictionary.items() if kind == "Transfer Syntax"}
    since = {"1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.8.1"}
    assert set(ranks) == known | since
    refused = {name for _, name, rank in table("syntaxes") if rank == "refused"}
    assert all(name.startswith(("JPIP", "SMPTE", "RFC 2557", "XML", "Papyrus")) for name in refused)
    lossless = {uid for uid, name, _ in table("syntaxes") if "Lossless" in name and "Near" not in name}
    assert all(int(ranks[uid]) < 4 for uid in lossless)


def test_contexts(role: Role) -> None:
    uids = " ".join(row[1] for row in table("contexts"))
    assert all(uid in uids for uid in (VERIFICATION, COMMITMENT, "1.2.840.10008.5.1.4.1.1.*"))
    proposed = (
        context(1, VERIFICATION, IMPLICIT), context(3, CT, EXPLICIT),
        context(5, "1.2.840.10008.5.1.4.1.1.9999", EXPLICIT),
        context(7, "1.3.6.1.4.1.1.2", EXPLICIT), context(9, COMMITMENT, IMPLICIT),
        context(11, "1.2.840.10008.5.1.4.31", IMPLICIT), context(13, VERIFICATION, "1.2.840.10008.1.2.4.70"),
    )  # fmt: skip
    for calling, commits in (("ASKS", 0), ("OTHER", 3)):
        with Wire(role.port) as wire:
            results = wire.associate(*proposed, calling=calling)
            assert [results[number][0] for number in (1, 3, 5, 7, 9, 11, 13)] == [0, 0, 0, 0, commits, 3, 4]


def test_names(role: Role) -> None:
    values = dict(table("names"))
    with Wire(role.port) as wire:
        wire.send(associate_rq(PROPOSED))
        _, body = wire.read_pdu()
    user = body[body.index(b"\x50\x00", 68):]
    assert values["Application Context"].encode() in body
    assert values["Implementation Class UID"].encode() in user
    assert values["Implementation Version Name"].encode() in user
    assert struct.pack(">I", int(values["Maximum PDU offered"].split()[0])) in user
    assert b"\x53\x00" not in user and b"\x58\x00" not in user and b"\x59\x00" not in user


def test_rejections(role: Role, start: Callable[..., Role]) -> None:
    rows = {row[0].split(" (")[0]: tuple(map(int, row[1:])) for row in table("rejections")}
    strict = start(unknown_callers="refuse")
    open_ = start("open", max_associations=1)
    for port, expected, options in (
        (role.port, "called AE title not ours", {"called": "WRONG"}),
        (strict.port, "calling AE title refused", {}),
        (role.port, "application context not DICOM", {"application": "1.2.3"}),
        (role.port, "protocol version not 1", {"version": 2}),
    ):
        with Wire(port) as wire:
            wire.send(associate_rq(PROPOSED, **options))  # type: ignore[arg-type]
            assert wire.read_pdu() == (3, b"\0" + bytes(rows[expected])), expected
            wire.wait_closed()
    with Wire(open_.port) as first:
        first.associate()
        with Wire(open_.port) as second:
            second.send(associate_rq(PROPOSED))
            assert second.read_pdu() == (3, b"\0" + bytes(rows["too many associations"]))


def n_action(instance: str = COMMITMENT_INSTANCE, sop_class: str = COMMITMENT, action: int = 1) -> bytes:
    """The command of a request; its data set follows."""
    values = (element(0, 0x0003, even(sop_class)) + element(0, 0x0100, b"\x30\x01") + element(0, 0x0110, b"\1\0")
              + element(0, 0x0800, b"\0\0") + element(0, 0x1001, even(instance))
              + element(0, 0x1008, struct.pack("<H", action)))  # fmt: skip
    return p_data(pdv(5, 3, element(0, 0, struct.pack("<I", len(values))) + values))


def request(count: int) -> bytes:
    item = element(8, 0x1150, even(CT)) + element(8, 0x1155, even("1.2.3"))
    items = (struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item) * count
    return element(8, 0x1195, even("1.2.99")) + element(8, 0x1199, items)


def test_statuses(role: Role) -> None:
    listed = {(row[0], int(row[2], 16)) for row in table("statuses")}
    seen = set()
    with Wire(role.port) as wire:
        wire.associate(PROPOSED, context(5, COMMITMENT, IMPLICIT), calling="ASKS")
        seen.add(("C-ECHO", wire.echo()))
        for sop, body in (("1.2.3", data_set("1.2.3")), ("1.2.3", data_set("1.2.3", pixels=200_000)),
                          ("1.2.4", data_set("1.2.3")), ("1.2.3", b""), ("", data_set("1.2.3"))):  # fmt: skip
            seen.add(("C-STORE", wire.store(1, sop, body).status))
        for asked, body in ((n_action(), request(1)), (n_action(), b""), (n_action(instance="1.2"), request(1)),
                            (n_action(sop_class=CT), request(1)), (n_action(action=2), request(1)),
                            (n_action(), request(commitment.MAX_REFERENCES + 1))):  # fmt: skip
            wire.send(asked)
            wire.send_data(body, 100_000, context_id=5)
            seen.add(("N-ACTION", wire.response().status))
        wire.send(p_data(pdv(3, 3, command(0x0020, 9, VERIFICATION, data_set=False))))
        seen.add(("any other", wire.response().status))
    assert seen == listed


def test_failure_reasons() -> None:
    assert {int(row[0], 16) for row in table("reasons")} == {
        commitments.PROCESSING_FAILURE, commitments.NO_SUCH_OBJECT_INSTANCE, commitments.CLASS_INSTANCE_CONFLICT,
        commitments.DUPLICATE_TRANSACTION_UID, commitments.RESOURCE_LIMITATION,
            commitment_report.SOP_CLASS_NOT_SUPPORTED}
    assert messages.RESOURCE_LIMITATION == 0x0213


def test_security() -> None:
    values = dict(table("security"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(tls._CIPHERS_1_2)
    offered = [cipher for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert offered and all("Kx=ECDH" in cipher["description"] for cipher in offered)
    families = {re.search(r"Enc=([A-Z0-9/]+)", cipher["description"])[1] for cipher in offered}  # type: ignore[index]
    assert families == set(values["Ciphers of TLS 1.2"].split(", "))
    assert values["Protocols"] == "TLSv1.2, TLSv1.3"


def test_the_page_is_linked() -> None:
    assert "conformance.md" in (Path(ROOT) / "docs" / "index.md").read_text(encoding="utf-8")
