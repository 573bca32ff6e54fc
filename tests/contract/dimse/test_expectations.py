"""What a modality and a PACS expect, where no other file has it: bytes as sent in every syntax, data stay data."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from internal.config.declarations import DicomSettings
from internal.spool import EntryKind
from tests.contract.dimse.role import MOST_BYTES, ROOT, Footprint, Role
from tests.contract.dimse.test_conformance import COMMITMENT, n_action, request, table
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
    explicit,
    p_data,
    pdu,
    pdv,
    served,
)

DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"


def recoded(body: bytes, syntax: str) -> bytes:
    """The data set of `data_set` in another encoding."""
    if syntax == DEFLATED:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return deflate.compress(body) + deflate.flush()
    if syntax not in (IMPLICIT, BIG):
        return body
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import read_dataset
    from pydicom.filewriter import write_dataset

    read = read_dataset(DicomBytesIO(body), False, True)
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax == IMPLICIT, syntax != BIG
    write_dataset(buffer, read)
    return bytes(buffer.getvalue())


def test_bytes_are_kept_as_sent_in_every_listed_syntax(shared: Role) -> None:
    syntaxes = [uid for uid, _, rank in table("syntaxes") if rank != "refused"]
    assert len(syntaxes) == 53
    sent = {}
    with Wire(shared.port) as wire:
        wire.associate(*(context(2 * n + 1, CT, uid) for n, uid in enumerate(syntaxes)))
        for number, syntax in enumerate(syntaxes):
            uid = f"1.2.826.88.{number + 1}"
            sent[uid] = recoded(data_set(uid), syntax)
            wire.send(p_data(pdv(2 * number + 1, 3, command(1, number + 1, CT, uid))))
            wire.send_data(sent[uid], context_id=2 * number + 1)
            assert wire.response().status == 0, syntax
        wire.release()
    kept = shared.data_sets()
    assert {uid: kept[uid] for uid in sent} == sent


def test_classes_that_nobody_has_heard_of_are_kept(shared: Role) -> None:
    classes = ["1.3.46.670589.2.5.1.1", "1.2.840.10008.5.1.4.1.1.9999", "1.2.840.113619.4.30"]
    with Wire(shared.port) as wire:
        wire.associate(*(context(2 * n + 1, uid, EXPLICIT) for n, uid in enumerate(classes)))
        for number, sop_class in enumerate(classes):
            uid = f"1.2.826.89.{number + 1}"
            wire.send(p_data(pdv(2 * number + 1, 3, command(1, 1, sop_class, uid))))
            wire.send_data(data_set(uid, sop_class), context_id=2 * number + 1)
            assert wire.response().status == 0
        wire.release()


@pytest.mark.attack("S21")
def test_a_deflated_bomb_is_kept_without_being_inflated(start: Callable[..., Role]) -> None:
    role = start()
    footprint = Footprint(role)
    zeros = bytes(1 << 20)
    bombs = {}
    for uid, identity_first in (("1.2.1", True), ("1.2.2", False)):
        deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        long_value = struct.pack("<HH2sHI", 9, 0x1001, b"OB", 0, 200 << 20)
        plain = [data_set(uid), zeros] if identity_first else [explicit(8, 0x16, b"UI", CT.encode()), long_value]
        bombs[uid] = b"".join(deflate.compress(part) for part in plain) + b"".join(
            deflate.compress(zeros) for _ in range(200)) + deflate.flush()
    with Wire(role.port) as wire:
        wire.associate(context(1, CT, DEFLATED), context(3, VERIFICATION, EXPLICIT))
        assert wire.store(1, "1.2.1", bombs["1.2.1"]).status == 0
        assert wire.store(2, "1.2.2", bombs["1.2.2"]).status == 0xC000  # its UIDs lie behind 200 MB of nothing
        assert wire.echo() == 0
        wire.release()
    assert footprint.growth_bytes() < MOST_BYTES
    assert role.data_sets() == {"1.2.1": bombs["1.2.1"]}


@pytest.mark.attack("S55")
def test_titles_and_uids_cannot_write_lines_or_control_codes_into_the_log(start: Callable[..., Role]) -> None:
    role = start(unknown_callers="refuse")
    evil = "A\nERROR x\x1b[2J"
    with Wire(role.port) as wire:
        wire.send(associate_rq(context(1, "1.2\n3\x1b]0;x", EXPLICIT), calling=evil))
        assert wire.read_pdu()[0] == 3
        wire.wait_closed()
    accepts = start("accepting")
    with Wire(accepts.port) as wire:
        wire.associate(calling=evil)
        assert wire.store(1, "1.2\n\x1b[31m", data_set("1.2.3")).status == 0x0117
        wire.release()
    for one in (role, accepts):
        assert one.stop() == 0
        lines = one.log().splitlines()
        assert any("ERROR x" in line for line in lines)
        assert not any(line.startswith("ERROR x") for line in lines)
        assert "\x1b" not in one.log()
    assert [path for path in accepts.root.rglob("*") if "\x1b" in path.name or "\n" in path.name] == []


#: Imports of a DICOM library, but for the dictionary.
IMPORTED = re.compile(
    r"^\s*(from pydicom import (?!datadict\s*$).*|from pydicom\.(?!datadict\b).*|import pydicom.*"
    r"|(?:from|import) pynetdicom.*|.*import_module\(.py(?:net)?dicom.*)", re.MULTILINE)
EVIL_TITLES = ["../../../tmp/x", "%n%s%x%999999d", "A\x1b[2J\x1b]0;x\x07"]


def outside(top: Path, role: Role) -> dict[Path, tuple[int, int]]:
    """What lies below `top` and does not belong to the role: size and time of the last change."""
    ours = (role.root, role.log_path)
    found = {path: path.lstat() for path in (top, *top.rglob("*")) if not any(path.is_relative_to(one) for one in ours)}
    return {path: (file.st_size, file.st_mtime_ns) for path, file in found.items()}


@pytest.mark.attack("S1")
@pytest.mark.attack("S55")
@pytest.mark.parametrize("title", EVIL_TITLES, ids=["path", "format", "codes"])
def test_titles_are_no_part_of_a_path_and_escaped_in_the_log(
    start: Callable[..., Role], tmp_path: Path, title: str
) -> None:
    below = tmp_path / "a" / "b" / "c"
    for folder in (below, *below.parents[:3]):
        (folder / "tmp").mkdir(parents=True)  # so that each way up would lead somewhere
    role = start("a/b/c/spool", commitment_callers=[title], commitment_same_association=[title])
    before = outside(tmp_path, role)
    with Wire(role.port) as wire:
        wire.associate(context(1, CT, EXPLICIT), context(5, COMMITMENT, IMPLICIT), calling=title)
        assert wire.store(1, "1.2.3", data_set("1.2.3")).status == 0
        wire.send(n_action())
        wire.send_data(request(1), context_id=5)
        assert wire.response().status == 0
        wire.send(pdu(5, bytes(4)))
        wire.read_pdu()
    assert role.record("released")["calling_aet"] == title
    assert len(role.entries(EntryKind.REQUEST)) == 1
    with Wire(role.port) as wire:
        wire.send(associate_rq(context(1, CT, EXPLICIT), called=title))
        assert wire.read_pdu()[0] == 3
        wire.wait_closed()
    assert role.stop() == 0
    assert outside(tmp_path, role) == before
    names = [path.name for path in role.root.rglob("*")]
    assert not [name for name in names for part in ("..", "%", "\x1b") if part in name]
    assert repr(title) in role.log()
    assert "\x1b" not in role.log() and "\x07" not in role.log() and "Traceback" not in role.log()


def test_nothing_of_pydicom_is_loaded_where_bytes_of_peers_come_in() -> None:
    """The receiving processes, the scanner and the indexer work without it: no parser of others sees such bytes."""
    code = ("import sys\nimport interface.dimse.child, interface.dimse.receive_role, internal.indexer\n"
            "print([name for name in sys.modules if name.split('.')[0] in ('pydicom', 'pynetdicom')])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    using = {path.relative_to(ROOT).as_posix(): {name.partition(" #")[0].strip() for name in IMPORTED.findall(text)}
             for folder in ("internal", "interface") for path in (ROOT / folder).rglob("*.py")
             if "pydicom" in (text := path.read_text()) or "pynetdicom" in text}
    assert {name: imported for name, imported in using.items() if imported} == {
        "internal/header_json.py": {
            "from pydicom import config", "from pydicom.dataset import Dataset",
            "from pydicom.errors import BytesLengthException", "from pydicom.filereader import read_dataset"},
        "interface/dimse/commitment_report.py": {
            "from pydicom.dataset import Dataset", "from pydicom.filebase import DicomBytesIO",
            "from pydicom.filewriter import write_dataset"},
    }  # the first reads in a process with limits, the second only writes; all others use no more than the dictionary


@pytest.mark.parametrize("fault", ["store.after_write:eio", "store.after_write:enospc"])
def test_a_commitment_request_that_the_disk_does_not_keep_is_not_acknowledged(
    start: Callable[..., Role], fault: str
) -> None:
    role = start(commitment_callers=["ASKS"], environment={"ROUTER_FAULT": f"{fault}:2"})
    with Wire(role.port) as wire:
        wire.associate(context(5, COMMITMENT, IMPLICIT), context(3, VERIFICATION, EXPLICIT), calling="ASKS")
        wire.send(n_action())
        wire.send_data(request(1), context_id=5)
        assert wire.response().status == 0x0110
        assert wire.echo() == 0
    assert role.entries(EntryKind.REQUEST) == []


@pytest.mark.strace
def test_a_commitment_request_is_durable_before_it_is_acknowledged(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("strace is missing")
        pytest.skip("strace is missing")
    prefix = ["strace", "-ff", "-y", "-s", "300", "-o", str(tmp_path / "trace"), "-e",
              "trace=write,writev,fsync,fdatasync,rename,renameat,renameat2,sendto"]  # fmt: skip
    role = Role(tmp_path / "spool", prefix=prefix, commitment_callers=["ASKS"])
    with Wire(role.port) as wire:
        wire.associate(context(5, COMMITMENT, IMPLICIT), calling="ASKS")
        wire.send(n_action())
        wire.send_data(request(1), context_id=5)
        assert wire.response().status == 0
    os.kill(role.status("receive.json")["pid"], 15)
    assert role.process.wait(30) == 0
    assert role.process.stdin
    role.process.stdin.close()
    traces = [path.read_text(errors="replace").splitlines() for path in tmp_path.glob("trace.*")]
    (trace,) = [lines for lines in traces if any("sendto" in line and "0\\201" in line for line in lines)]
    answered = next(n for n, line in enumerate(trace) if "sendto" in line and "0\\201" in line)  # Command Field 0x8130
    before = [line.split("(")[0] + (" new" if "/new" in line else "") for line in trace[:answered]
              if not line.startswith("sendto")]
    named = next(n for n, line in enumerate(trace) if line.startswith("rename") and ".req" in line)
    assert any(line.startswith(("fsync", "fdatasync")) and "/tmp/receive-" in line for line in trace[:named]), before
    assert any(line.startswith(("fsync", "fdatasync")) and "/new>" in line for line in trace[named:answered]), before


@pytest.mark.long(seconds=3)
def test_a_burst_of_200_from_one_address_fits_the_settings_as_they_come(start: Callable[..., Role]) -> None:
    defaults = DicomSettings()
    role = start(max_associations=defaults.max_associations,
                 max_associations_per_address=defaults.max_associations_per_address)
    footprint = Footprint(role)
    with ExitStack() as opened:
        wires = [opened.enter_context(Wire(role.port, timeout=60)) for _ in range(200)]
        for wire in wires:
            wire.send(associate_rq(context(1, CT, EXPLICIT) + context(3, VERIFICATION, EXPLICIT)))
        assert {wire.read_pdu()[0] for wire in wires} == {2}
        assert role.fresh("receive.json")["open"] == 200
        assert served(role.port)
        assert footprint.growth_bytes() < MOST_BYTES
        assert role.stop(25) == 0
