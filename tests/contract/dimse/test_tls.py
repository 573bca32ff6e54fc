"""The TLS port: modern protocols only, client certificates, and handshakes that hold nobody up."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from interface.dimse.tls import fingerprint
from tests.contract.dimse.role import ROOT, Role, memory_bytes, peak_bytes, until
from tests.contract.dimse.test_peers import copies, dcmtk
from tests.contract.dimse.wire import CT, Closed, Wire, command, data_set, p_data, pdv


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Key and certificate as tls-init writes them."""
    folder = tmp_path_factory.mktemp("tls")
    done = subprocess.run(
        [sys.executable, "main.py", "tls-init", "router.example", "--set", f"router.data_dir={folder}"], cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    key, certificate = folder / "tls" / "router.key", folder / "tls" / "router.crt"
    assert key.stat().st_mode & 0o777 == 0o600
    again = subprocess.run(
        [sys.executable, "main.py", "tls-init", "--set", f"router.data_dir={folder}"], cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
    assert again.returncode != 0 and "exists already" in again.stderr
    return key, certificate


@pytest.fixture
def tls(start: Callable[..., Role], pair: tuple[Path, Path]) -> Callable[..., Role]:
    def make(**settings: object) -> Role:
        values = {"tls_port": 0, "tls_key": str(pair[0]), "tls_certificate": str(pair[1]), **settings}
        return start(**values)

    return make


class SecureWire(Wire):
    """A peer that speaks TLS and trusts exactly the router's certificate."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        self.sock = context.wrap_socket(self.sock, server_hostname="router.example")


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate))


def tls_port(role: Role) -> int:
    return int(role.status("receive.json")["tls_port"])


def test_images_come_in_over_tls_and_in_the_clear_beside(tls: Callable[..., Role], pair: tuple[Path, Path]) -> None:
    role = tls()
    body = data_set("1.2.3.77", pixels=300_000)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trusting(pair[1])
        context.minimum_version = context.maximum_version = version
        with SecureWire(tls_port(role), context) as wire:
            wire.associate()
            assert wire.store(1, "1.2.3.77", body).status == 0
            assert wire.sock.version() == version.name.replace("_", ".")  # type: ignore[attr-defined]
    with Wire(role.port) as wire:
        wire.associate()
        assert wire.echo() == 0
    assert role.data_sets() == {"1.2.3.77": body}
    assert role.stop() == 0


@pytest.mark.attack("S10")
def test_old_protocols_weak_suites_and_plain_bytes_are_refused(
    tls: Callable[..., Role], pair: tuple[Path, Path]
) -> None:
    role = tls()
    weak = trusting(pair[1])
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-SHA:AES256-GCM-SHA384:@SECLEVEL=0")
    with pytest.raises(OSError):
        SecureWire(tls_port(role), weak)
    old = trusting(pair[1])
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        SecureWire(tls_port(role), old)
    with Wire(tls_port(role)) as plain:
        plain.send(b"\x01\x00\x00\x00\x00\x44" + bytes(68))
        plain.wait_closed()
    with SecureWire(tls_port(role), trusting(pair[1])) as wire:
        wire.associate()
        assert wire.echo() == 0


#: Profiles of DCMTK (PS3.15 B.9 to B.12), and the protocol that it may speak: the first two take both.
PROFILES = (("+py", "TLSv1.2"), ("+py", "TLSv1.3"), ("+px", "TLSv1.2"), ("+px", "TLSv1.3"), ("+pz", "TLSv1.2"))


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with key and certificate of a client that is known and of one that is not, as tls-init makes them."""
    from interface.cli_tls import make_certificate

    for name in ("known", "stranger"):
        key, certificate = make_certificate((f"{name}.example",), datetime.datetime.now(datetime.UTC))
        (tmp_path / f"{name}.key").write_bytes(key)
        (tmp_path / f"{name}.crt").write_bytes(certificate)
    return tmp_path


def speaking_only(version: str, folder: Path) -> str:
    """A configuration of OpenSSL that knows no other version."""
    path = folder / f"{version}.cnf"
    path.write_text("openssl_conf = main\n[main]\nssl_conf = ssl\n[ssl]\nsystem_default = only\n"
                    f"[only]\nMinProtocol = {version}\nMaxProtocol = {version}\n")
    return str(path)


@pytest.mark.dcmtk
@pytest.mark.parametrize("demanded", [False, True], ids=["any client", "only with a certificate"])
def test_dcmtk_with_the_profiles_of_bcp_195(
    tls: Callable[..., Role], pair: tuple[Path, Path], certificates: Path, demanded: bool
) -> None:
    role = tls(tls_client_ca=str(certificates / "known.crt") if demanded else "")
    port, trusted = tls_port(role), ("+cf", pair[1])
    who = {name: ("+tls", certificates / f"{name}.key", certificates / f"{name}.crt") for name in ("known", "stranger")}
    uids = copies(certificates / "images", "CT_small.dcm", len(PROFILES))
    for number, (profile, version) in enumerate(PROFILES):
        only = speaking_only(version, certificates)
        done = dcmtk("storescu", port, *who["known"], profile, *trusted, "-d",
                     certificates / "images" / f"{number:03d}.dcm", OPENSSL_CONF=only)
        assert done.returncode == 0, (profile, version, done.stderr)
        assert f"Protocol    : {version}" in done.stdout + done.stderr
        for client in (who["stranger"], ("+tla",)) if profile == "+py" else ():
            done = dcmtk("echoscu", port, *client, profile, *trusted, OPENSSL_CONF=only)
            assert (done.returncode == 0) is not demanded, (profile, version, client, done.stderr)
    assert dcmtk("echoscu", port, *who["known"], *trusted).returncode == 0
    retired = dcmtk("echoscu", port, *who["known"], "+pa", *trusted)
    assert retired.returncode != 0 and "handshake failure" in retired.stderr
    untrusting = dcmtk("echoscu", port, *who["known"], "+cf", certificates / "stranger.crt")
    assert untrusting.returncode != 0 and "certificate verify failed" in untrusting.stderr
    assert role.data_sets().keys() == set(uids)
    assert role.stop() == 0 and "Traceback" not in role.log()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_pynetdicom(
    tls: Callable[..., Role], pair: tuple[Path, Path], certificates: Path, version: ssl.TLSVersion
) -> None:
    """With the certificate that is demanded, and without."""
    role = tls(tls_client_ca=str(certificates / "known.crt"))
    (uid,) = copies(certificates / "images", "CT_small.dcm", 1)
    contexts = {name: trusting(pair[1]) for name in ("known", "nobody")}
    contexts["known"].load_cert_chain(certificates / "known.crt", certificates / "known.key")
    entity = AE("CT1")
    entity.add_requested_context(CTImageStorage)
    established = {}
    for name, secure in contexts.items():
        secure.minimum_version = secure.maximum_version = version
        association = entity.associate("127.0.0.1", tls_port(role), ae_title="DCMROUTER",
                                       tls_args=(secure, "router.example"))
        established[name] = association.is_established
        if association.is_established:
            dataset = pydicom.dcmread(certificates / "images" / "000.dcm")
            assert association.send_c_store(dataset).Status == 0
            association.release()
    assert established == {"known": True, "nobody": False}
    assert role.data_sets().keys() == {uid}


@pytest.mark.attack("S10")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_need_a_certificate_where_so_configured(
    tls: Callable[..., Role], pair: tuple[Path, Path], tmp_path: Path, version: ssl.TLSVersion
) -> None:
    from interface.cli_tls import make_certificate

    key, certificate = make_certificate(("ct1.example",), datetime.datetime.now(datetime.UTC))
    (tmp_path / "client.pem").write_bytes(key + certificate)
    (tmp_path / "ca.pem").write_bytes(certificate)
    role = tls(tls_client_ca=str(tmp_path / "ca.pem"))
    known, stranger, nobody = trusting(pair[1]), trusting(pair[1]), trusting(pair[1])
    known.load_cert_chain(tmp_path / "client.pem")
    key, certificate = make_certificate(("ct1.example",), datetime.datetime.now(datetime.UTC))
    (tmp_path / "stranger.pem").write_bytes(key + certificate)
    stranger.load_cert_chain(tmp_path / "stranger.pem")
    for context in (known, stranger, nobody):
        context.minimum_version = context.maximum_version = version
    with SecureWire(tls_port(role), known) as wire:
        wire.associate()
        assert wire.echo() == 0
    for context in (stranger, nobody):
        with pytest.raises((OSError, Closed)), SecureWire(tls_port(role), context) as wire:
            wire.associate()
    until(lambda: "handshake with 127.0.0.1 failed" in role.log())


@pytest.mark.attack("S9")
@pytest.mark.parametrize("hello", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x01\x00\x00\x00"],
                         ids=["nothing", "a byte", "half a hello", "no TLS"])
def test_sigterm_with_stalled_handshakes(tls: Callable[..., Role], hello: bytes) -> None:
    """Their number changes nothing: memory stays flat, and the role ends in time."""
    role = tls(children=2)
    child = role.children()[0]
    base = memory_bytes(child)
    silent = [socket.create_connection(("127.0.0.1", tls_port(role)), timeout=15) for _ in range(150)]
    for sock in silent:
        sock.send(hello)
    until(lambda: role.fresh("receive.json")["counters"].get("connections", 0) >= 150)
    assert peak_bytes(child) - base < 100_000_000
    assert role.stop(25) == 0
    assert "Traceback" not in role.log()
    for sock in silent:
        sock.close()


@pytest.mark.attack("S9")
@pytest.mark.long(seconds=10)
def test_memory_is_flat_with_as_many_as_fit(tls: Callable[..., Role], pair: tuple[Path, Path]) -> None:
    role = tls(drain_s=1, max_associations=400, max_associations_per_address=250, max_pdu_bytes=131_072)
    child = role.children()[0]
    base = memory_bytes(child)
    said = p_data(pdv(1, 3, command(1, 1, CT, "1.2"))) + p_data(pdv(1, 0, bytes(120_000))) * 4
    wires = [SecureWire(tls_port(role), trusting(pair[1])) for _ in range(240)]
    for wire in wires:
        wire.associate()
        wire.send(said)
    with SecureWire(tls_port(role), trusting(pair[1])) as honest:
        honest.associate()
        assert honest.store(1, "1.2.3", data_set("1.2.3")).status == 0
    assert peak_bytes(child) - base < 100_000_000
    assert role.stop(25) == 0
    for wire in wires:
        wire.sock.close()


@pytest.mark.attack("S9")
def test_stalled_handshakes_hold_nobody_up_and_end(tls: Callable[..., Role], pair: tuple[Path, Path]) -> None:
    role = tls(association_timeout_s=2)
    silent = [socket.create_connection(("127.0.0.1", tls_port(role)), timeout=15) for _ in range(30)]
    for number, sock in enumerate(silent):
        sock.send(b"\x16\x03\x01" if number % 2 else b"\x16")
    with SecureWire(tls_port(role), trusting(pair[1])) as wire:
        wire.associate()
        assert wire.echo() == 0
    for sock in silent:
        with sock:
            try:
                while sock.recv(100):
                    pass
            except ConnectionError:
                pass
    until(lambda: role.fresh("receive.json")["open"] == 0)


def test_sigterm_under_stalled_handshakes(tls: Callable[..., Role]) -> None:
    role = tls()
    silent = [socket.create_connection(("127.0.0.1", tls_port(role)), timeout=15) for _ in range(20)]
    assert role.stop(25) == 0
    for sock in silent:
        sock.close()


def test_a_certificate_that_is_not_there_is_said(tls: Callable[..., Role], tmp_path: Path) -> None:
    role = tls(tls_certificate=str(tmp_path / "none.pem"), wait=False)
    assert role.process.wait(20) == 2
    assert "tls-init" in role.log()


def served(role: Role, certificate: Path) -> bool:
    """Whether a new connection gets exactly this certificate."""
    try:
        with SecureWire(tls_port(role), trusting(certificate)) as wire:
            wire.associate()
            return wire.echo() == 0
    except ssl.SSLCertVerificationError:
        return False


def test_sighup_takes_a_new_certificate_and_never_a_bad_one(
    tls: Callable[..., Role], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """Both children have the new one; what stands stays; a bad one changes nothing; a restart with it has no TLS."""
    key, certificate = tmp_path / "in-use.key", tmp_path / "in-use.crt"
    key.write_bytes(pair[0].read_bytes())
    certificate.write_bytes(pair[1].read_bytes())
    done = subprocess.run(
        [sys.executable, "main.py", "tls-init", "router.example", "--set", f"router.data_dir={tmp_path / 'new'}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    new_key, new_certificate = tmp_path / "new" / "tls" / "router.key", tmp_path / "new" / "tls" / "router.crt"
    role = tls(tls_key=str(key), tls_certificate=str(certificate), children=2)
    children = until(lambda: ready_children(role, 2))
    with SecureWire(tls_port(role), trusting(pair[1])) as standing:
        standing.associate()
        key.write_bytes(new_key.read_bytes())
        certificate.write_bytes(new_certificate.read_bytes())
        role.process.send_signal(signal.SIGHUP)
        until(lambda: all(role.status(f"receive-{slot}.json")["tls_certificate"] == fingerprint(str(new_certificate))
                          for slot in range(2)))  # fmt: skip
        assert all(served(role, new_certificate) for _ in children)
        assert not any(served(role, pair[1]) for _ in children)
        assert standing.echo() == 0

        certificate.write_bytes(pair[1].read_bytes())  # does not belong to the key
        role.process.send_signal(signal.SIGHUP)
        until(lambda: all(f"{pid} ERROR" in role.log() for pid in children))
        assert "the ones before stay in force" in role.log()
        assert all(served(role, new_certificate) for _ in children)
        assert standing.echo() == 0

    for pid in children:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not set(ready_children(role, 2) or children) & set(children))
    assert "there is no TLS until they can be read" in role.log()
    with pytest.raises((OSError, Closed)):
        SecureWire(tls_port(role), trusting(new_certificate)).associate()
    with Wire(role.port) as plain:
        plain.associate()
        assert plain.echo() == 0
    certificate.write_bytes(new_certificate.read_bytes())
    role.process.send_signal(signal.SIGHUP)
    until(lambda: in_force(role, new_certificate))
    assert role.stop() == 0


def ready_children(role: Role, count: int) -> list[int]:
    """The process ids of the children if so many are ready."""
    ready = [child["pid"] for child in role.fresh("receive.json")["children"] if child["ready"]]
    return ready if len(ready) == count else []


def in_force(role: Role, certificate: Path) -> bool:
    try:
        return served(role, certificate)
    except (OSError, Closed):
        return False
