"""A STOW-RS server that reads requests strictly and answers as a test says."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from internal.dicomfile import read_meta

Reply = tuple[int, str, bytes]
CT = "1.2.840.10008.5.1.4.1.1.2"


def json_reply(uids: list[str], failed: dict[str, int] | None = None, status: int | None = None) -> Reply:
    """A DICOM JSON answer. Source: PS3.18 10.5.3, PS3.18 F."""
    failed = failed or {}
    document: dict[str, Any] = {}

    def items(some: list[str], extra: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        return {"vr": "SQ", "Value": [{"00081150": {"vr": "UI", "Value": [CT]},
                                       "00081155": {"vr": "UI", "Value": [uid]}, **extra(uid)} for uid in some]}

    stored = [uid for uid in uids if uid not in failed]
    if stored:
        document["00081199"] = items(stored, lambda _: {})
    if failed:
        document["00081198"] = items(list(failed), lambda uid: {"00081197": {"vr": "US", "Value": [failed[uid]]}})
    code = status or (202 if stored and failed else 409 if failed else 200)
    return code, "application/dicom+json", json.dumps(document).encode()


def xml_reply(uids: list[str]) -> Reply:
    """A NativeDicomModel answer. Source: PS3.19 A.1."""
    items = "".join(f'<Item number="{n}"><DicomAttribute tag="00081155" vr="UI"><Value number="1">{uid}</Value>'
                    "</DicomAttribute></Item>" for n, uid in enumerate(uids, 1))
    body = ('<?xml version="1.0"?><NativeDicomModel><DicomAttribute tag="00081199" vr="SQ">'
            f"{items}</DicomAttribute></NativeDicomModel>")
    return 200, "application/dicom+xml", body.encode()


class StowServer:
    """`answer` gets the UIDs of each request and gives the reply; `authorizations` is what callers showed."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answer: Callable[[list[str]], Reply] = json_reply
        self.batches: list[list[str]] = []
        self.authorizations: list[str] = []
        self.tokens: list[dict[str, list[str]]] = []
        self.accept: Callable[[str], bool] = lambda _: True
        server = self

        class Handler(_Handler):
            stow = server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    stow: StowServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._reply(200, "application/dicom+json", b"[]")

    def do_POST(self) -> None:
        assert "chunked" not in self.headers.get("Transfer-Encoding", "")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/token":
            self.stow.authorizations.append(self.headers["Authorization"])
            self.stow.tokens.append(parse_qs(body.decode()))
            token = {"access_token": f"token-{len(self.stow.tokens)}", "expires_in": 3600, "token_type": "Bearer"}
            self._reply(200, "application/json", json.dumps(token).encode())
            return
        self.stow.authorizations.append(self.headers.get("Authorization", ""))
        if not self.stow.accept(self.stow.authorizations[-1]):
            self._reply(401, "text/plain", b"")
            return
        uids = self._uids(body)
        self.stow.batches.append(uids)
        self._reply(*self.stow.answer(uids))

    def _uids(self, body: bytes) -> list[str]:
        """Take the multipart body apart with another library than the one that wrote it."""
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = BytesParser().parsebytes(head + body)
        found = []
        for part in message.get_payload():
            assert part.get_content_type() == "application/dicom"  # type: ignore[union-attr]
        boundary = message.get_boundary()
        assert boundary is not None and body.endswith(f"--{boundary}--\r\n".encode())
        for piece in body.split(f"--{boundary}\r\n".encode())[1:]:
            _, _, data = piece.partition(b"\r\n\r\n")
            import io

            found.append(read_meta(io.BytesIO(data)).sop_uid)
        return found
