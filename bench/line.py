"""A line between the router and the platform, made of one process: round trip, bandwidth, cost of a new connection.

`python -m bench.line PORT --rtt-ms 50 --mbit 100 --connect-rtts 2` listens on a free port, prints it, and forwards to
127.0.0.1:PORT. All connections share the bandwidth of each direction. A new connection carries its first byte after
`connect-rtts` round trips (TCP and TLS 1.3 need two). Changes when the benches need another line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from dataclasses import dataclass, field

CHUNK_BYTES = 16 * 1024
#: A sender may be this far ahead of the line, as a device's buffer allows.
BUFFER_S = 0.03


@dataclass
class Direction:
    """One direction of the line: when its last byte will have left."""

    bytes_per_s: float
    delay_s: float
    free_at_s: float = field(default=0.0)

    def book(self, count: int, now_s: float) -> float:
        """Return when `count` bytes that are handed over now will arrive."""
        self.free_at_s = max(self.free_at_s, now_s) + count / self.bytes_per_s
        return self.free_at_s + self.delay_s


async def _read(reader: asyncio.StreamReader, line: Direction, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(CHUNK_BYTES):
        await queue.put((line.book(len(data), loop.time()), data))
        ahead_s = line.free_at_s - loop.time() - BUFFER_S
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
    await queue.put((0.0, b""))


async def _write(writer: asyncio.StreamWriter, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        at_s, data = await queue.get()
        if not data:
            break
        if (wait_s := at_s - loop.time()) > 0:
            await asyncio.sleep(wait_s)
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.write_eof()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Direction) -> None:
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    with contextlib.suppress(OSError):
        await asyncio.gather(_read(reader, line, queue), _write(writer, queue))


async def _serve(options: argparse.Namespace) -> None:
    rtt_s = options.rtt_ms / 1000
    up, down = (Direction(options.mbit * 125_000, rtt_s / 2) for _ in range(2))

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(options.connect_rtts * rtt_s)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", options.port)
        await asyncio.gather(_pump(reader, far_writer, up), _pump(far_reader, writer, down))
        for one in (writer, far_writer):
            one.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


def main() -> None:
    """Forward until ended."""
    parser = argparse.ArgumentParser(prog="python -m bench.line", description="A slow line to a local port.")
    parser.add_argument("port", type=int)
    parser.add_argument("--rtt-ms", type=float, default=50.0)
    parser.add_argument("--mbit", type=float, default=100.0)
    parser.add_argument("--connect-rtts", type=float, default=2.0)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
