"""A DICOM peer made of plain bytes: says exactly what a test wants, right or wrong. Shares no code with the product."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"


def item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body


def context(number: int, abstract: str, *syntaxes: str) -> bytes:
    parts = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    return item(0x20, bytes((number, 0, 0, 0)) + parts)


def associate_rq(
    contexts: bytes, calling: str = "WIRE", called: str = "DCMROUTER", version: int = 1,
    application: str = APPLICATION_CONTEXT, extra_user: bytes = b"",
) -> bytes:  # fmt: skip
    head = struct.pack(">HH16s16s32s", version, 0, called.encode().ljust(16), calling.encode().ljust(16), b"")
    user = item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3") + extra_user
    return pdu(0x01, head + item(0x10, application.encode()) + contexts + item(0x50, user))


def element(group: int, number: int, value: bytes) -> bytes:
    return struct.pack("<HHI", group, number, len(value)) + value


def even(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode() + b"\0" * (len(text) % 2)


def left_out(value: str | bytes) -> bool:
    """Return whether there is no element at all: of a text that is empty; bytes are sent as they are, also none."""
    return value == "" and isinstance(value, str)


def command(
    field: int, message_id: int, sop_class: str | bytes = "", sop_uid: str | bytes = "", *, data_set: bool = True,
) -> bytes:  # fmt: skip
    body = b""
    if not left_out(sop_class):
        body += element(0, 0x0002, even(sop_class))
    body += element(0, 0x0100, struct.pack("<H", field)) + element(0, 0x0110, struct.pack("<H", message_id))
    body += element(0, 0x0700, b"\0\0") + element(0, 0x0800, b"\0\0" if data_set else b"\x01\x01")
    if not left_out(sop_uid):
        body += element(0, 0x1000, even(sop_uid))
    return element(0, 0, struct.pack("<I", len(body))) + body


def pdv(context_id: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment


def p_data(*pdvs: bytes) -> bytes:
    return pdu(0x04, b"".join(pdvs))


def explicit(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def data_set(
    sop_uid: str | bytes, sop_class: str | bytes = CT, study: str = "1.2.9", series: str = "1.2.9.1", pixels: int = 512,
    private: int = 0,
) -> bytes:  # fmt: skip
    """An explicit little endian data set; `private` bytes lie between the SOP and the study UIDs."""
    parts = [
        b"" if left_out(sop_class) else explicit(8, 0x16, b"UI", even(sop_class)),
        b"" if left_out(sop_uid) else explicit(8, 0x18, b"UI", even(sop_uid)),
        explicit(9, 0x1001, b"OB", bytes(private)) if private else b"",
        explicit(0x10, 0x10, b"PN", b"Test^Patient"),
        explicit(0x20, 0x0D, b"UI", study.encode()) if study else b"",
        explicit(0x20, 0x0E, b"UI", series.encode()) if series else b"",
        explicit(0x7FE0, 0x10, b"OW", bytes(index % 251 for index in range(pixels))),
    ]
    return b"".join(parts)


@dataclass
class Response:
    field: int
    message_id: int
    status: int
    comment: str
    values: dict[int, bytes]


class Closed(Exception):
    """The product closed the connection; `reset` if by RST."""

    def __init__(self, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class Wire:
    """One connection to the product."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 15.0, source: str = "") -> None:
        self.sock = socket.create_connection((host, port), timeout=timeout, source_address=(source, 0))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.sock.recv(count - len(data))
            except ConnectionError:
                raise Closed(reset=True) from None
            if not more:
                raise Closed(reset=False)
            data += more
        return data

    def read_pdu(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBI", self.exactly(6))
        return kind, self.exactly(length)

    def wait_closed(self) -> bool:
        """Close our side, as PS3.8 wants it of who gets the last PDU, and read to the end; True if it was a reset."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return True
        try:
            while True:
                self.exactly(1)
        except Closed as closed:
            return closed.reset

    def associate(self, *contexts: bytes, **options: object) -> dict[int, tuple[int, str]]:
        """Return result and transfer syntax per context id of the A-ASSOCIATE-AC."""
        proposed = b"".join(contexts) or context(1, CT, EXPLICIT) + context(3, VERIFICATION, IMPLICIT)
        self.send(associate_rq(proposed, **options))  # type: ignore[arg-type]
        kind, body = self.read_pdu()
        assert kind == 2, (kind, body.hex())
        return parse_ac(body)

    def store(
        self, message_id: int, sop_uid: str | bytes, body: bytes, sop_class: str | bytes = CT, fragment: int = 16000,
    ) -> Response:  # fmt: skip
        self.send(p_data(pdv(1, 3, command(0x0001, message_id, sop_class, sop_uid))))
        self.send_data(body, fragment)
        return self.response()

    def send_data(self, body: bytes, fragment: int = 16000, context_id: int = 1) -> None:
        pieces = [body[start : start + fragment] for start in range(0, len(body), fragment)] or [b""]
        for piece in pieces[:-1]:
            self.send(p_data(pdv(context_id, 0, piece)))
        self.send(p_data(pdv(context_id, 2, pieces[-1])))

    def response(self) -> Response:
        kind, body = self.read_pdu()
        assert kind == 4, (kind, body.hex())
        length, _, control = struct.unpack_from(">IBB", body)
        assert control == 3 and length == len(body) - 4
        values: dict[int, bytes] = {}
        position = 6
        while position < len(body):
            group, number, size = struct.unpack_from("<HHI", body, position)
            assert group == 0
            values[number] = body[position + 8 : position + 8 + size]
            position += 8 + size
        numbers = {number: int.from_bytes(value, "little") for number, value in values.items() if len(value) == 2}
        comment = values.get(0x0902, b"").decode().strip()
        return Response(numbers[0x0100], numbers[0x0120], numbers[0x0900], comment, values)

    def echo(self, message_id: int = 77, context_id: int = 3) -> int:
        self.send(p_data(pdv(context_id, 3, command(0x0030, message_id, VERIFICATION, data_set=False))))
        return self.response().status

    def release(self) -> None:
        self.send(pdu(0x05, bytes(4)))
        assert self.read_pdu() == (6, bytes(4))
        assert self.wait_closed() is False
        self.sock.close()


class DeafWire(Wire):
    """A peer that reads no answers: its system takes a few small segments for it, then no more."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout: float = 15.0) -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(timeout)
        self.sock.connect((host, port))


def served(port: int, source: str = "") -> bool:
    """Return True: another peer, from the address `source`, is accepted and answered."""
    with Wire(port, source=source) as wire:
        wire.associate()
        assert wire.echo() == 0
        wire.release()
    return True


def parse_ac(body: bytes) -> dict[int, tuple[int, str]]:
    results: dict[int, tuple[int, str]] = {}
    position = 68
    while position < len(body):
        kind, _, length = struct.unpack_from(">BBH", body, position)
        value = body[position + 4 : position + 4 + length]
        if kind == 0x21:
            results[value[0]] = (value[2], value[8:].decode())
        position += 4 + length
    return results
