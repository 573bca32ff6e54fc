"""Fuzz targets: bytes of an association over a socket pair, and files for the scanner.

`python -m bench.fuzz --target association --seconds 60 --corpus tests/corpus` begins with the kept inputs and mutates
them, keeps what reaches new lines (at most 2 MB in all) and writes an input that breaks a rule to the corpus folder;
that ends the run with a traceback. The tests go through the kept corpus: what broke a rule once belongs in it.
The rules: nothing but the documented errors, no input takes longer than its bound, as many images are kept as were
answered with success, no temporary file stays behind, and threads and descriptors do not grow in number.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import random
import resource
import socket
import stat
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from interface.dimse.association import Association, Receiver
from interface.dimse.commitment import commitment, commitment_answer
from interface.dimse.counters import Counters
from interface.dimse.negotiation import COMMITMENT_INSTANCE, STORAGE_COMMITMENT, VERIFICATION
from interface.dimse.policy import PolicyFile
from interface.dimse.records import Refusals, Register
from interface.dimse.services import Services, echo
from interface.dimse.settings import ReceiveSettings
from interface.dimse.store_lane import StoreLane
from internal import dicomfile, scan
from internal.errors import NotDicom
from internal.spool import EntryKind, Spool

MAX_CORPUS_BYTES = 2_000_000
MAX_INPUT_BYTES = 60_000
SLOWEST_S = 5.0
MEMORY_BYTES = 2 * 1024**3
CT, EXPLICIT, IMPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
_WORDS = (b"\0", b"\xff" * 4, b"\xff\xff\xff\x7f", b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0", b"\x01\x01", b"SQ\0\0")


class Broken(Exception):
    """An input broke a rule."""


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BxH", kind, len(value)) + value


def _pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body


def _p_data(context_id: int, control: int, fragment: bytes) -> bytes:
    return _pdu(4, struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment)


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(value)) + value


def _command(field: int, sop_class: bytes, has_data: bool) -> bytes:
    return (_element(2, sop_class) + _element(0x100, struct.pack("<H", field)) + _element(0x110, b"\1\0")
            + _element(0x800, b"\0\0" if has_data else b"\1\1") + _element(0x1000, b"1.2.3.4\0"))  # fmt: skip


def _asking(field: int, kind: int) -> bytes:
    """The command of an N-ACTION or N-EVENT-REPORT of storage commitment."""
    return (_element(2, STORAGE_COMMITMENT.encode()) + _element(3, STORAGE_COMMITMENT.encode())
            + _element(0x100, struct.pack("<H", field)) + _element(0x110, b"\1\0") + _element(0x800, b"\0\0")
            + _element(0x1001, COMMITMENT_INSTANCE.encode()) + _element(kind, b"\1\0"))  # fmt: skip


def _references() -> bytes:
    """What both of them carry, in explicit little endian."""
    def short(number: int, value: bytes) -> bytes:
        return struct.pack("<HH2sH", 8, number, b"UI", len(value)) + value

    item = short(0x1150, CT.encode() + b"\0") + short(0x1155, b"1.2.3.4\0")
    items = struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
    return short(0x1195, b"1.2.99") + struct.pack("<HH2sHI", 8, 0x1199, b"SQ", 0, len(items)) + items


def _data_set() -> bytes:
    def short(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        return struct.pack("<HH2sH", group, number, vr, len(value)) + value

    nested = struct.pack("<HH2sHI", 8, 0x1111, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    nested += struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    return (short(8, 0x16, b"UI", CT.encode() + b"\0") + short(8, 0x18, b"UI", b"1.2.3.4\0") + nested
            + short(0x20, 0xD, b"UI", b"1.2.9\0") + short(0x20, 0xE, b"UI", b"1.2.9.1\0")
            + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 64) + bytes(64))  # fmt: skip


def association_seeds() -> list[bytes]:
    """Whole conversations of a well-behaved peer."""
    contexts = b"".join(
        _item(0x20, bytes((number, 0, 0, 0)) + _item(0x30, uid.encode()) + _item(0x40, EXPLICIT.encode())
              + _item(0x40, IMPLICIT.encode()))
        for number, uid in ((1, CT), (3, VERIFICATION), (5, STORAGE_COMMITMENT)))  # fmt: skip
    role = _item(0x54, b"\0\5" + b"1.2.3\1\0")
    user = _item(0x50, _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3") + role)
    head = struct.pack(">H2x16s16s32x", 1, b"DCMROUTER".ljust(16), b"FUZZ".ljust(16))
    request = _pdu(1, head + _item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + user)
    store = _p_data(1, 3, _command(1, CT.encode() + b"\0", True)) + _p_data(1, 2, _data_set())
    ping = _p_data(3, 3, _command(0x30, VERIFICATION.encode() + b"\0", False))
    action = _p_data(5, 3, _asking(0x130, 0x1008)) + _p_data(5, 2, _references())
    report = _p_data(5, 3, _asking(0x100, 0x1002)) + _p_data(5, 2, _references())
    release = _pdu(5, bytes(4))
    # The first image of a process is kept in another way than those after it.
    return [request + store + store + ping + action + release, request + ping + release, request + action,
            request + report, request + release]


def scan_seeds() -> list[bytes]:
    """Whole Part 10 files."""
    return [dicomfile.build_meta(CT, "1.2.3.4", syntax, None) + _data_set()
            for syntax in (EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")]


class _Defects(logging.Handler):
    """Notices the exceptions that an association's top has caught: each is a defect of ours."""

    found = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found = f"{record.getMessage()}: {record.exc_info[1]!r}"


class _Everybody:
    """Every title: all callers get their report on the same association."""

    def __contains__(self, title: object) -> bool:
        return True


class AssociationTarget:
    """A receiver over a spool of its own; an input is everything that a peer says."""

    def __init__(self, folder: Path) -> None:
        settings = ReceiveSettings(association_timeout_s=1, idle_timeout_s=1, stall_timeout_s=1)
        self._folder = folder
        self._spool = spool = Spool.open(folder / "spool")
        self._writer = spool.writer("0")
        syntaxes = frozenset({VERIFICATION, STORAGE_COMMITMENT})
        services = Services({0x30: echo, 0x130: commitment(self._writer, _Everybody()),
                             0x100: commitment_answer(self._writer)}, syntaxes)
        self._receiver = Receiver(PolicyFile(spool, settings), StoreLane(self._writer, 1 << 20), services,
                                  Register(self._writer), Refusals(), Counters(), spool.reports)
        self._defects = _Defects()
        log = logging.getLogger("router.dimse")
        log.propagate = False
        log.handlers = [self._defects]

    def run(self, data: bytes) -> None:
        """Say `data`, close, and look at what is left behind."""
        listener = socket.create_server(("127.0.0.1", 0))
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        listener.close()
        heard = bytearray()
        speaker = threading.Thread(target=_speak, args=(ours, data, heard))
        speaker.start()
        Association(theirs, self._receiver).run()
        speaker.join()
        ours.close()
        if self._defects.found:
            raise Broken(self._defects.found)
        answered = successes(bytes(heard))
        kept = sum(entry.kind is EntryKind.INSTANCE for entry in self._spool.scan_new())
        if answered != kept:
            raise Broken(f"{answered} images were answered with success, {kept} are kept")
        files = [path.stat() for path in (self._folder / "spool" / "tmp" / "0").iterdir()]
        if any(file.st_size and file.st_nlink == 1 for file in files):  # empty: made ahead; linked: in new/ as well
            raise Broken("a temporary file is left behind")
        for path in (self._folder / "spool" / "new").iterdir():
            path.unlink()


def _speak(sock: socket.socket, data: bytes, heard: bytearray) -> None:
    with suppress(OSError):  # aborted by the product, perhaps before it has read everything
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        while more := sock.recv(65536):
            heard += more


def successes(heard: bytes) -> int:
    """Return how many C-STORE responses with status 0x0000 are in what the product said."""
    count = position = 0
    while position + 6 <= len(heard):
        kind, length = struct.unpack_from(">BxI", heard, position)
        values: dict[int, bytes] = {}
        at, end = position + 12, position + 6 + length  # behind PDU and PDV header: a response fits into one
        while kind == 4 and at + 8 <= end:
            number, size = struct.unpack_from("<2xHI", heard, at)
            values[number] = heard[at + 8 : at + 8 + size]
            at += 8 + size
        count += values.get(0x100) == b"\x01\x80" and values.get(0x900) == b"\0\0"
        position = end
    return count


class ScanTarget:
    """The scanner and the file meta reader; an input is a file."""

    def __init__(self, folder: Path) -> None:
        del folder

    def run(self, data: bytes) -> None:
        """Read `data` as the receiver and as the indexer do."""
        try:
            meta = dicomfile.read_meta(io.BytesIO(data))
            body = data[meta.dataset_offset :]
            from_bytes = scan.scan(body, meta.transfer_syntax_uid)
            if scan.scan(io.BytesIO(body), meta.transfer_syntax_uid) != from_bytes:
                raise Broken("a buffer and a file are read differently")
        except NotDicom:
            return


TARGETS: dict[str, tuple[Callable[[Path], Any], Callable[[], list[bytes]]]] = {
    "association": (AssociationTarget, association_seeds), "scan": (ScanTarget, scan_seeds),
}


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return `data` with one to eight small changes."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(result) + 1)
        match rng.randrange(6):
            case 0 if at < len(result):
                result[at] = rng.randrange(256)
            case 1 if at < len(result):
                result[at] ^= 1 << rng.randrange(8)
            case 2:
                del result[at : at + rng.randrange(1, 40)]
            case 3:
                result[at:at] = rng.choice(_WORDS)
            case 4:
                start = rng.randrange(len(other) + 1)
                result[at:at] = other[start : start + rng.randrange(200)]
            case _:
                result[at : at + 4] = rng.choice(_WORDS)
    return bytes(result[:MAX_INPUT_BYTES])


class Coverage:
    """Which lines of the product an input reaches."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int]] = set()
        self.grown = False

    def trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Note one line (sys.settrace)."""
        del arg
        name = frame.f_code.co_filename
        if "/interface/dimse/" not in name and "/internal/" not in name:
            return None
        if event == "line" and (name, frame.f_lineno) not in self._seen:
            self._seen.add((name, frame.f_lineno))
            self.grown = True
        return self.trace


def in_use() -> tuple[int, int]:
    """Return the threads of this process and its descriptors, but for those of empty files made ahead."""
    descriptors = 0
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            file = path.stat()
            descriptors += not (stat.S_ISREG(file.st_mode) and file.st_nlink and not file.st_size)
    return threading.active_count(), descriptors


def fuzz(target: str, seconds: float, seed: int, corpus: Path) -> int:
    """Run for `seconds`; return how many inputs were tried. Raises Broken after keeping the input in `corpus`."""
    make, seeds = TARGETS[target]
    rng, inputs, coverage, tried = random.Random(seed), seeds(), Coverage(), 0
    given = len(inputs)
    corpus.mkdir(parents=True, exist_ok=True)
    inputs += [path.read_bytes() for path in sorted(corpus.glob("kept-*"))]
    kept_bytes = sum(map(len, inputs))
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        subject = make(Path(folder))
        most: tuple[int, int] | None = None
        for number in range(10**9):
            if time.monotonic() > deadline and tried >= len(inputs):
                return tried
            data = inputs[number] if number < len(inputs) else mutate(rng.choice(inputs), rng.choice(inputs), rng)
            coverage.grown = False
            _try(subject, data, coverage, corpus, most)
            tried += 1
            most = in_use() if tried == given else most  # with everything open that is opened once
            if coverage.grown and number >= given and kept_bytes + len(data) <= MAX_CORPUS_BYTES:
                inputs.append(data)
                kept_bytes += len(data)
                (corpus / f"kept-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
    return tried


def _try(subject: Any, data: bytes, coverage: Coverage, corpus: Path, most: tuple[int, int] | None) -> None:
    began = time.monotonic()
    sys.settrace(coverage.trace)
    try:
        subject.run(data)
        if time.monotonic() - began > SLOWEST_S:
            raise Broken("it took too long")
        if most is not None and any(now > before for now, before in zip(in_use(), most, strict=True)):
            raise Broken(f"{in_use()} threads and descriptors stay, not {most}")
    except Exception as error:
        (corpus / f"broken-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
        raise Broken(f"{type(error).__name__}: {error}") from error
    finally:
        sys.settrace(None)


def main() -> int:
    """Run one target from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--target", choices=sorted(TARGETS), required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    tried = fuzz(options.target, options.seconds, options.seed, options.corpus / options.target)
    print(f"{options.target}: {tried} inputs, no rule broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
