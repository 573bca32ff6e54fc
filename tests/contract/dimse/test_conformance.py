"""docs/conformance.md against the running receiver: contexts, syntaxes, names, rejections, statuses, security."""

from __future__ import annotations

import os
import re
import signal
import ssl
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509 import SignatureAlgorithmOID, load_pem_x509_certificate
from pydicom._uid_dict import UID_dictionary

from interface.cli_run import receive_settings
from interface.cli_tls import make_certificate
from interface.dimse import commitment, commitment_report, messages, tls
from internal import commitments
from internal.config import DicomSettings, load
from internal.spool import EntryKind
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
    item,
    p_data,
    parse_ac,
    pdv,
)

PAGE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
PROPOSED = context(1, CT, EXPLICIT) + context(3, VERIFICATION, EXPLICIT)
BIG_ENDIAN, JPEG_LOSSLESS, JPIP = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.94"
NO_ROOM = "no room, or a disk fault"
#: Calling AE title, presentation context id, command, data set.
Asked = tuple[str, int, bytes, bytes | None]


def table(name: str) -> list[list[str]]:
    """The rows of one marked table without its head."""
    body = PAGE.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.strip().splitlines()]
    assert len(rows) > 2, name
    return rows[2:]


def configured(folder: Path, **other: Any) -> dict[str, Any]:
    """What the receiver is told by a router.conf that names one caller and one node for commitment, with `other`."""
    path = folder / "router.conf"
    path.write_text("[dicom]\ncommitment_callers = ASKS@127.0.0.1:104, BOTH@127.0.0.1:104\nmax_object = 1MB\n"
                    + "".join(f"[dimse:{title.lower()}]\nhost = 127.0.0.1\nport = 104\nae_title = {title}\n"
                              f"commitment = yes\n" for title in ("KEEPS", "BOTH")), encoding="utf-8")
    path.chmod(0o600)
    settings = load(path, {}, {"router.data_dir": str(folder)}, require_platform=False)
    return {**asdict(receive_settings(settings, supervised=False)), "port": 0, "bind": ["127.0.0.1"], "children": 1,
            **other}


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    folder = tmp_path_factory.mktemp("conformance")
    made = Role(folder / "spool", **configured(folder))
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


def negotiated(
    role: Role, calling: str, proposed: Sequence[bytes], roles: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[dict[int, tuple[int, str]], dict[str, tuple[int, int]]]:
    """Return the result of each context, and the answer to each role selection (the peer as SCU, as SCP)."""
    selections = b"".join(item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes(wanted))
                          for uid, wanted in (roles or {}).items())
    with Wire(role.port) as wire:
        wire.send(associate_rq(b"".join(proposed), calling=calling, extra_user=selections))
        kind, body = wire.read_pdu()
    assert kind == 2
    answers = [value for kind, value in user_items(body) if kind == 0x54]
    return parse_ac(body), {value[2:-2].decode(): (value[-2], value[-1]) for value in answers}


def user_items(body: bytes) -> list[tuple[int, bytes]]:
    """The items of the user information of an A-ASSOCIATE-AC."""
    found = []
    for kind, value in items(body[68:]):
        found += items(value) if kind == 0x50 else []
    return found


def items(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    while data:
        kind, length = struct.unpack_from(">BxH", data)
        found.append((kind, data[4 : 4 + length]))
        data = data[4 + length:]
    return found


def examples_of(cell: str) -> list[str]:
    """The UIDs that a cell of the contexts names, or some that it means."""
    if "any root other than" in cell:
        return ["1.3.6.1.4.1.1.2", "2.25.1"]
    return [uid.replace("*", "9999") for uid in re.findall(r"1\.2\.840\.[0-9.]*[0-9*]", cell)]


def test_contexts(role: Role) -> None:
    """Each with its syntaxes, for whom it is for and for nobody else, and in the role that the page gives us."""
    offered = {"uncompressed": ((EXPLICIT, 0), (IMPLICIT, 0), (BIG_ENDIAN, 0), (JPEG_LOSSLESS, 4)),
               "all of 1.3": ((EXPLICIT, 0), (IMPLICIT, 0), (BIG_ENDIAN, 0), (JPEG_LOSSLESS, 0), (JPIP, 4))}
    for name, cell, ours, syntaxes in table("contexts"):
        callers = {"`commitment_callers`": ("ASKS", "BOTH"), "`[dimse:NAME]`": ("KEEPS", "BOTH")}
        welcome = next((titles for key, titles in callers.items() if key in name), ("OTHER", "ASKS", "KEEPS"))
        for uid in examples_of(cell):
            proposed = [context(2 * n + 1, uid, syntax) for n, (syntax, _) in enumerate(offered[syntaxes])]
            for calling in welcome:
                results, answered = negotiated(role, calling, proposed, {uid: (1, 1)})
                assert [result for result, _ in results.values()] == [code for _, code in offered[syntaxes]], uid
                assert answered == {uid: (1, 1) if calling == "BOTH" else (ours == "SCP", ours == "SCU")}, name
                assert negotiated(role, calling, proposed, {uid: (0, 0)})[1] == {uid: (0, 0)}
            if "OTHER" not in welcome:
                results, answered = negotiated(role, "OTHER", proposed, {uid: (1, 1)})
                assert {result for result, _ in results.values()} == {3} and answered == {}


def test_what_is_refused(role: Role) -> None:
    """What the page says, and of all that the dictionary of another library calls storage nothing else."""
    refused = {uid: name for name, uid in table("refused")}
    named = {uid: name for uid, (name, kind, *_) in UID_dictionary.items() if kind == "SOP Class"
             and ("Storage" in name or uid.startswith("1.2.840.10008.5.1.4.1.1."))} | {"1.2.840.10008.9.9": "unknown"}
    uids = sorted(named)
    results = {}
    for start in range(0, len(uids), 100):
        part = uids[start : start + 100]
        found, _ = negotiated(role, "OTHER", [context(2 * n + 1, uid, EXPLICIT) for n, uid in enumerate(part)])
        results |= {uid: found[2 * n + 1][0] for n, uid in enumerate(part)}
    refusals = {uid: named[uid] for uid, result in results.items() if result == 3}
    assert refusals == refused | {"1.2.840.10008.9.9": "unknown", COMMITMENT: named[COMMITMENT]}
    assert set(results.values()) == {0, 3}


def test_names(role: Role) -> None:
    """Whatever a peer proposes beside them: no window of operations, no extended negotiation, no user identity."""
    values = dict(table("names"))
    beside = (item(0x53, b"\0\0\0\0") + item(0x56, struct.pack(">H", len(CT)) + CT.encode() + bytes(6))
              + item(0x58, b"\1\1\0\1u\0\0"))
    with Wire(role.port) as wire:
        wire.send(associate_rq(PROPOSED, extra_user=beside))
        _, body = wire.read_pdu()
    assert dict(items(body[68:]))[0x10].decode() == values["Application Context"]
    size = int(values["Maximum PDU offered"].split()[0])
    assert user_items(body) == [(0x51, struct.pack(">I", size)), (0x52, values["Implementation Class UID"].encode()),
                                (0x55, values["Implementation Version Name"].encode())]
    assert size == DicomSettings().max_pdu


def test_rejections(role: Role, start: Callable[..., Role]) -> None:
    rows = {row[0].split(" (")[0]: tuple(map(int, row[1:])) for row in table("rejections")}
    strict = start(unknown_callers="refuse")
    full = start("open", max_associations=1)
    seen = {
        "called AE title not ours": rejection(role, called="WRONG"),
        "calling AE title refused": rejection(strict),
        "application context not DICOM": rejection(role, application="1.2.3"),
        "protocol version not 1": rejection(role, version=2),
    }
    with Wire(full.port) as first:
        first.associate()
        seen["too many associations"] = rejection(full)
    (child,) = strict.children()
    os.kill(child, signal.SIGKILL)
    with strict.spool.lock("slot-receive-0", 10):  # the next one cannot begin to serve
        seen["no receiving process ready"] = rejection(strict)
    assert seen == rows


def rejection(role: Role, **options: Any) -> tuple[int, ...]:
    """Result, source and reason of the A-ASSOCIATE-RJ."""
    with Wire(role.port) as wire:
        wire.send(associate_rq(PROPOSED, **options))
        kind, body = wire.read_pdu()
        assert kind == 3
        wire.wait_closed()
    return tuple(body[1:])


def command_set(values: bytes) -> bytes:
    return element(0, 0, struct.pack("<I", len(values))) + values


def n_action(
    instance: str = COMMITMENT_INSTANCE, sop_class: str = COMMITMENT, action: int = 1, context_id: int = 5,
) -> bytes:
    """The command of a request for commitment; its data set follows."""
    return p_data(pdv(context_id, 3, command_set(
        element(0, 0x0003, even(sop_class)) + element(0, 0x0100, b"\x30\x01") + element(0, 0x0110, b"\1\0")
        + element(0, 0x0800, b"\0\0") + element(0, 0x1001, even(instance))
        + element(0, 0x1008, struct.pack("<H", action)))))  # fmt: skip


def n_event_report(context_id: int = 5) -> bytes:
    """The command of an answer to a request for commitment; its data set follows."""
    return p_data(pdv(context_id, 3, command_set(
        element(0, 0x0002, even(COMMITMENT)) + element(0, 0x0100, b"\0\1") + element(0, 0x0110, b"\1\0")
        + element(0, 0x0800, b"\0\0") + element(0, 0x1000, even(COMMITMENT_INSTANCE))
        + element(0, 0x1002, b"\1\0"))))  # fmt: skip


def request(count: int, uid: str = "1.2.3") -> bytes:
    """A request or report that names so many instances: the same one, or with "{}" in `uid` others."""
    listed = []
    for number in range(count):
        one = element(8, 0x1150, even(CT)) + element(8, 0x1155, even(uid.format(number)))
        listed.append(struct.pack("<HHI", 0xFFFE, 0xE000, len(one)) + one)
    return element(8, 0x1195, even("1.2.99")) + element(8, 0x1199, b"".join(listed))


def asks(body: bytes, calling: str = "ASKS", context_id: int = 5, **options: Any) -> Asked:
    return calling, context_id, n_action(context_id=context_id, **options), body


def reports(body: bytes, calling: str = "KEEPS", context_id: int = 5) -> Asked:
    return calling, context_id, n_event_report(context_id), body


def c_store(sop_uid: str, body: bytes, sop_class: str = CT) -> Asked:
    return "OTHER", 1, p_data(pdv(1, 3, command(0x0001, 1, sop_class, sop_uid))), body


def without_data(field: int) -> Asked:
    return "OTHER", 3, p_data(pdv(3, 3, command(field, 9, VERIFICATION, data_set=False))), None


def situations() -> dict[tuple[str, str], tuple[Asked, ...]]:
    """Service and situation of the page: what is asked to bring it about."""
    too_many = request(commitment.MAX_REFERENCES + 1, "1.2.3.{}")
    return {
        ("C-ECHO", "always"): (without_data(0x0030),),
        ("C-STORE", "stored"): (c_store("1.2.3", data_set("1.2.3")),),
        ("C-STORE", NO_ROOM): (c_store("1.2.3", data_set("1.2.3")),),
        ("C-STORE", "larger than `max_object`"): (c_store("1.2.3", data_set("1.2.3", pixels=1_100_000)),),
        ("C-STORE", "UIDs or SOP class differ between command, context and data set, or are no UIDs"): (
            c_store("1.2.4", data_set("1.2.3")), c_store("1.2.3", data_set("1.2.3"), VERIFICATION),
            c_store("1.2.3", data_set("1.2.3", sop_class="1.2.840.10008.5.1.4.1.1.4")),
            c_store("1.2.3", data_set("1.2.3", study="../1"))),
        ("C-STORE", "the data set is empty or has no readable UIDs"): (
            c_store("1.2.3", b""), c_store("1.2.3", b"no data set at all"),
            c_store("1.2.3", data_set("1.2.3", study=""))),
        ("C-STORE", "Affected SOP Instance UID empty or no UID"): (
            c_store("", data_set("1.2.3")), c_store("../1", data_set("1.2.3"))),
        ("N-ACTION", "the request is on disk"): (asks(request(1)),),
        ("N-ACTION", NO_ROOM): (asks(request(1)),),
        ("N-ACTION", "malformed request"): (asks(b""), asks(request(0)), asks(request(1)[:-1])),
        ("N-ACTION", "another SOP instance than 1.2.840.10008.1.20.1.1"): (asks(request(1), instance="1.2"),),
        ("N-ACTION", "another SOP class or context"): (
            asks(request(1), sop_class=CT), asks(request(1), context_id=1)),
        ("N-ACTION", "another action type than 1"): (asks(request(1), action=2),),
        ("N-ACTION", "the caller is not in `commitment_callers`"): (
            asks(request(1), calling="KEEPS"), asks(request(1), calling="OTHER", context_id=1)),
        ("N-ACTION", "more than 50,000 instances"): (asks(too_many),),
        ("N-EVENT-REPORT", "the report is on disk"): (reports(request(1)),),
        ("N-EVENT-REPORT", NO_ROOM): (reports(request(1)),),
        ("N-EVENT-REPORT", "malformed report, one that names more than 50,000 instances, or another context"): (
            reports(b""), reports(request(0)), reports(too_many),
            reports(request(1), context_id=1)),
        ("N-EVENT-REPORT", "the caller is no node with `commitment = yes`"): (
            reports(request(1), calling="ASKS"), reports(request(1), calling="OTHER", context_id=1)),
        ("any other", "not offered"): (without_data(0x0020),),
    }  # fmt: skip


def test_statuses(role: Role, start: Callable[..., Role], tmp_path: Path) -> None:
    rows = {(service, situation): int(status, 16) for service, situation, status in table("statuses")}
    asked_for = situations()
    assert rows.keys() == asked_for.keys()
    without_room = (start("full", **configured(tmp_path, min_free_bytes=1 << 60)),
                    start("torn", **configured(tmp_path), environment={"ROUTER_FAULT": "store.after_write:eio"}))
    for key, asked in asked_for.items():
        for receiver in without_room if key[1] == NO_ROOM else (role,):
            assert {answer(receiver, one) for one in asked} == {rows[key]}, key
    assert role.data_sets().keys() == {"1.2.3"} and len(role.entries(EntryKind.REQUEST)) == 2


def answer(role: Role, asked: Asked) -> int:
    """Return the status, on an association that goes on whatever it is."""
    calling, context_id, said, body = asked
    with Wire(role.port) as wire:
        wire.associate(PROPOSED, context(5, COMMITMENT, IMPLICIT), calling=calling)
        wire.send(said)
        if body is not None:
            wire.send_data(body, 100_000, context_id=context_id)
        status = wire.response().status
        assert wire.echo() == 0
        wire.release()
    return status


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
    _, certificate = make_certificate(("router.example",), datetime.now(UTC))
    made = load_pem_x509_certificate(certificate)
    assert made.signature_algorithm_oid == SignatureAlgorithmOID.RSA_WITH_SHA256
    assert values["Certificate that `tls-init` makes"].startswith(f"RSA {made.public_key().key_size}, SHA-256;")


def test_the_page_is_linked() -> None:
    assert "conformance.md" in (Path(ROOT) / "docs" / "index.md").read_text(encoding="utf-8")
