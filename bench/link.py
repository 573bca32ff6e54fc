"""A slow link for the benches: forwards TCP to a local port with a round trip time and a shared bandwidth.

`python -m bench.link --to PORT --rtt-ms 50 --mbit 100` prints the port it listens on and runs until its standard input
closes. A new connection costs one round trip before its first byte moves. Changes when a bench needs another link.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence

CHUNK_BYTES = 64 * 1024
IN_FLIGHT = 256


class Link:
    """Forwards connections to one port of this machine."""

    def __init__(self, port: int, rtt_s: float, bytes_per_s: float) -> None:
        self._port = port
        self._one_way_s = rtt_s / 2
        self._bytes_per_s = bytes_per_s
        self._free_at_s = {"up": 0.0, "down": 0.0}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection both ways until both ends are done."""
        await asyncio.sleep(2 * self._one_way_s)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, far_writer, "up"), self._pump(far_reader, writer, "down"))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        """Read at the link's rate, deliver half a round trip later."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)
        delivery = asyncio.create_task(_deliver(under_way, writer))
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(CHUNK_BYTES):
                leaves_s = max(loop.time(), self._free_at_s[way])
                self._free_at_s[way] = leaves_s + (len(data) / self._bytes_per_s if self._bytes_per_s else 0.0)
                if self._free_at_s[way] - loop.time() > 0.001:
                    await asyncio.sleep(self._free_at_s[way] - loop.time())
                await under_way.put((self._free_at_s[way] + self._one_way_s, data))
        except OSError:
            pass
        await under_way.put((0.0, b""))
        await delivery


async def _deliver(under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while True:
            at_s, data = await under_way.get()
            if not data:
                break
            if at_s > loop.time():
                await asyncio.sleep(at_s - loop.time())
            writer.write(data)
            await writer.drain()
    writer.close()


async def _run(link: Link) -> None:
    server = await asyncio.start_server(link.serve, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one link until standard input closes."""
    parser = argparse.ArgumentParser(prog="python -m bench.link")
    parser.add_argument("--to", type=int, required=True, metavar="PORT")
    parser.add_argument("--rtt-ms", type=float, default=0.0)
    parser.add_argument("--mbit", type=float, default=0.0, help="0: no limit")
    args = parser.parse_args(argv)
    asyncio.run(_run(Link(args.to, args.rtt_ms / 1000, args.mbit * 125_000)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
