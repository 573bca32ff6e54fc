"""The command: reads options, opens folder and port, says when it is ready, runs until it is told to stop.

Composition root of the sandbox. Imports everything else here. Changes when starting or stopping changes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from sandbox.application import Application
from sandbox.database import Database, DataFolderUnusable
from sandbox.options import Options, parse_options
from sandbox.server import PortUnavailable, Server, open_listener


def main(argv: list[str]) -> int:
    """Run the sandbox until SIGTERM or SIGINT: 0 then, 2 with one sentence on stderr when it cannot start.

    Prints `SATUSEHAT sandbox ready on http://HOST:PORT` on stdout as soon as connections are accepted.
    """
    try:
        options = parse_options(argv)
    except SystemExit as stopped:
        return stopped.code if isinstance(stopped.code, int) else 2
    _configure_log(verbose=options.verbose)
    stop = threading.Event()
    _stop_on_signals(stop)
    with contextlib.ExitStack() as stack:
        folder = options.data or Path(tempfile.mkdtemp(prefix="satusehat-sandbox-"))
        if options.data is None:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            sys.stderr.write(f"Data folder: {folder} (removed at the end; keep yours with --data DIR)\n")
        try:
            return _serve(options, folder, stop)
        except (DataFolderUnusable, PortUnavailable) as error:
            sys.stderr.write(f"{error}\n")
            return 2


def _serve(options: Options, folder: Path, stop: threading.Event) -> int:
    listener = open_listener(options.host, options.port)
    with contextlib.closing(listener), contextlib.closing(Database(folder)) as database:
        host, port = listener.getsockname()[:2]
        base_url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        application = Application(database, folder, options, base_url)
        server = Server(listener, application)
        server.start()
        sys.stdout.write(f"SATUSEHAT sandbox ready on {base_url}\n")
        sys.stdout.flush()
        # A wait without a limit would not let signal handlers run on Windows.
        while not stop.wait(0.5):
            pass
        server.stop()
        application.stop()
    return 0


def _configure_log(*, verbose: bool) -> None:
    log = logging.getLogger("sandbox")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.INFO if verbose else logging.WARNING)
    log.propagate = False


def _stop_on_signals(stop: threading.Event) -> None:
    reader, writer = os.pipe()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        os.write(writer, b"\0")  # stop.set() here might wait for the lock of a stop.wait() that it has interrupted

    def tell() -> None:
        os.read(reader, 1)
        stop.set()

    if threading.current_thread() is threading.main_thread():
        threading.Thread(target=tell, name="stop", daemon=True).start()
        signal.signal(signal.SIGINT, on_signal)
        signal.signal(signal.SIGTERM, on_signal)
