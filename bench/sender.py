"""A peer that sends images without pause, as a process of its own: what counts images must not slow the sending.

An image is made ready but for its UIDs beforehand, so that a sender takes less of the processor than any program that
reads and encodes files. Changes when a bench needs another stream of images.
"""

from __future__ import annotations

import multiprocessing
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any

import psutil

from bench.servers import TITLE, wait_until
from tests.contract.dimse.wire import CT, Wire, command, data_set, p_data, pdv

FRAGMENT_BYTES = 130_000
#: As a modality would: a study of its own for so many images.
STUDY_IMAGES = 200
_END_S = 60.0


class Sender:
    """Sends images of `size_bytes`, whose UIDs begin with `root`, over one association from `start` to `stop`."""

    def __init__(self, port: int, root: str, size_bytes: int) -> None:
        own = multiprocessing.get_context("spawn")  # nothing of the bench is carried along
        self._done = own.Value("Q", 0)
        self._stop = own.Event()
        self._process = own.Process(target=_send, args=(port, root, size_bytes, self._done, self._stop), daemon=True)

    def start(self) -> None:
        """Begin; returns before the first image is on its way."""
        self._process.start()

    @property
    def done(self) -> int:
        """How many images have been answered with success."""
        return int(self._done.value)

    @property
    def is_alive(self) -> bool:
        """Whether it still sends; one that was refused ends."""
        return self._process.is_alive()

    @property
    def cpu_s(self) -> float:
        """Processor time until now."""
        return float(sum(psutil.Process(self._process.pid).cpu_times()[:2]))

    def stop(self) -> None:
        """Ask it to end and wait until it has; RuntimeError if it could not send to the end."""
        self._stop.set()
        self._process.join(_END_S)
        if self._process.exitcode is None:
            self._process.kill()
        if self._process.exitcode != 0:
            raise RuntimeError("a sender was refused or cut off")


@contextmanager
def sending(port: int, root: str, size_bytes: int, count: int = 2) -> Iterator[list[Sender]]:
    """`count` senders, from the first answer to each of them to the end."""
    senders = [Sender(port, f"{root}.{number}", size_bytes) for number in range(count)]
    for sender in senders:
        sender.start()
    try:
        wait_until(lambda: all(sender.done or not sender.is_alive for sender in senders), "nothing was received")
        if not all(sender.is_alive for sender in senders):
            raise RuntimeError("a sender was refused")
        yield senders
    finally:
        with ExitStack() as stopping:  # each of them, whatever became of another
            for sender in senders:
                stopping.callback(sender.stop)


def _send(port: int, root: str, size_bytes: int, done: Synchronized[Any], stop: Event) -> None:
    tail = image_tail(size_bytes)
    with Wire(port, timeout=60) as wire:
        wire.associate(called=TITLE)
        while not stop.is_set():
            number = done.value
            wire.send(image_head(root, number, size_bytes) + tail)
            if wire.response().status:
                raise RuntimeError("an image was refused")
            done.value = number + 1  # nobody else writes
        wire.release()


def image_head(root: str, number: int, size_bytes: int) -> bytes:
    """Return the command and the data set of an image up to its `size_bytes` of pixels, as P-DATA."""
    uid = f"{root}.{number}"
    study = f"{root}.9.{number // STUDY_IMAGES}"
    body = data_set(uid, study=study, series=f"{study}.1", pixels=0)[:-12]
    body += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, size_bytes)
    return p_data(pdv(1, 3, command(0x0001, 1, CT, uid))) + p_data(pdv(1, 0, body))


def image_tail(size_bytes: int) -> bytes:
    """Return `size_bytes` of incompressible pixels as P-DATA, the last fragment marked."""
    starts = range(0, size_bytes, FRAGMENT_BYTES)
    return b"".join(
        p_data(pdv(1, 2 if start == starts[-1] else 0, os.urandom(min(FRAGMENT_BYTES, size_bytes - start))))
        for start in starts
    )
