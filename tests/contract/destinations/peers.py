"""Real programs that images are delivered to in tests: DCMTK's storescp, Orthanc and OpenSSH."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from bench.servers import free_port
from internal.dicomfile import read_meta
from tests.contract.destinations.images import IMPLEMENTATION

START_S = 20.0


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once something accepts connections on `port`."""
    deadline = time.monotonic() + START_S
    pause = threading.Event()
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        pause.wait(0.02)
    raise AssertionError(f"{process.args!r} does not listen on {port}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that a test started, with all its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def dataset_of(data: bytes) -> bytes:
    """Return the data set of a Part 10 file."""
    return data[read_meta(io.BytesIO(data)).dataset_offset :]


def reframe(data: bytes) -> bytes:
    """Return a Part 10 file as tests make it: a peer that was reached by DIMSE has written a file meta of its own."""
    found = read_meta(io.BytesIO(data))
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = UID(found.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(found.sop_uid)
    meta.TransferSyntaxUID = UID(found.transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION)
    out = io.BytesIO()
    write_file_meta_info(out, meta, enforce_standard=True)
    return bytes(128) + b"DICM" + out.getvalue() + data[found.dataset_offset :]


class Storescp:
    """DCMTK's storescp, one process for each association; keeps data sets exactly as they came."""

    def __init__(self, folder: Path, *options: str, aet: str = "PACS", port: int = 0, accept: str = "+xa") -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.aet, self.port = folder, aet, port or free_port()
        self._command = ["storescp", "--fork", accept, "+B", "-aet", aet, "-od", str(folder), *options, str(self.port)]
        self.start()

    def start(self) -> None:
        """Start the program, also again after stop()."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        start_new_session=True)
        await_port(self.port, self.process)

    def stop(self) -> None:
        """End it."""
        end(self.process)

    def files(self) -> list[Path]:
        """Every file it has written."""
        return [path for path in self.folder.iterdir() if path.is_file()]

    def arrived(self) -> dict[str, str]:
        """SHA-256 of each image by its UID, in the frame that tests use."""
        found = {}
        for path in self.files():
            data = path.read_bytes()
            found[read_meta(io.BytesIO(data)).sop_uid] = hashlib.sha256(reframe(data)).hexdigest()
        return found


class Orthanc:
    """Orthanc with its DICOMweb plugin, in memory and with a login."""

    user, password, aet = "radiologi", "rahasia-sekali", "ORTHANC"

    def __init__(self, folder: Path, **changes: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.http, self.dicom = free_port(), free_port()
        document = {
            "Name": "PACS", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "HttpPort": self.http, "DicomPort": self.dicom, "DicomAet": self.aet, "DicomCheckCalledAet": True,
            "RemoteAccessAllowed": False, "AuthenticationEnabled": True, "RegisteredUsers": {self.user: self.password},
            "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, "SynchronousCMove": True, "DicomAlwaysAllowEcho": True,
            "OverwriteInstances": False, "DicomServerEnabled": True, "StorageCompression": False,
        } | changes
        path = folder / "orthanc.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        program = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "Orthanc"
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([program, str(path)], stdout=log, stderr=log, start_new_session=True)
        await_port(self.http, self.process)
        await_port(self.dicom, self.process)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> bytes:
        """Use Orthanc's own API."""
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", body, method=method,
                                         headers={"Authorization": f"Basic {login}"})
        with urllib.request.urlopen(request, timeout=20) as reply:
            return bytes(reply.read())

    def arrived(self) -> dict[str, str]:
        """SHA-256 of each image by its UID, in the frame that tests use."""
        found = {}
        for one in json.loads(self.ask("/instances")):
            data = self.ask(f"/instances/{one}/file")
            found[read_meta(io.BytesIO(data)).sop_uid] = hashlib.sha256(reframe(data)).hexdigest()
        return found

    def forget(self) -> None:
        """Remove every image."""
        for one in json.loads(self.ask("/patients")):
            self.ask(f"/patients/{one}", "DELETE")

    def stop(self) -> None:
        """End it."""
        end(self.process)


class Sshd:
    """An OpenSSH server of this user's own, with keys made for it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.files = folder / "files"
        self.files.mkdir()
        for name in ("host", "other", "client"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        (folder / "authorized").write_text((folder / "client.pub").read_text())
        self.known_hosts = self.write_known("host")
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\nUsePAM no\n"
            "Subsystem sftp internal-sftp\n")
        self.start()

    def start(self) -> None:
        """Start the server, also again after stop()."""
        Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "config")],
                                            stdout=log, stderr=log, start_new_session=True)
        await_port(self.port, self.process)

    def write_known(self, key: str) -> Path:
        """Write a known_hosts file that believes in `key`."""
        kind, public = (self.folder / f"{key}.pub").read_text().split()[:2]
        path = self.folder / f"known-{key}"
        path.write_text(f"[127.0.0.1]:{self.port} {kind} {public}\n")
        return path

    def stop(self) -> None:
        """End it."""
        end(self.process)

    def arrived(self) -> dict[str, str]:
        """SHA-256 of each file by its name without .dcm."""
        return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.files.rglob("*.dcm")}

    def forget(self) -> None:
        """Remove every file."""
        for path in self.files.iterdir():
            shutil.rmtree(path)


@contextmanager
def running(peer: Any) -> Iterator[Any]:
    """Stop `peer` at the end."""
    try:
        yield peer
    finally:
        peer.stop()
