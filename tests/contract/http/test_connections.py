"""What every answer has that the server's own timers used to bring."""

from __future__ import annotations

import email.utils
import socket
import time

import pytest

from tests.contract.dimse.role import until
from tests.contract.http.doors import Doors


def test_every_answer_says_when_it_was_given(doors: Doors) -> None:
    visitor = doors.visitor()

    def seconds() -> float:
        not_before_s = int(time.time())
        shown = email.utils.parsedate_to_datetime(visitor.get("/login").headers["date"]).timestamp()
        assert not_before_s <= shown <= time.time()
        return shown

    first = seconds()
    until(lambda: seconds() > first)


def test_what_is_no_http_is_answered_with_a_date_too(doors: Doors) -> None:
    pytest.importorskip("httptools")  # the other parser of uvicorn answers without
    with socket.create_connection(("127.0.0.1", doors.port), timeout=10) as sock:
        sock.sendall(b"neither\r\n\r\n")
        assert b"\r\ndate: " in sock.recv(4096)
