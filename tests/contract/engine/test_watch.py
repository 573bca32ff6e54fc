"""Watched folders over a real spool and store: everything once, nothing lost, hostile files and archives."""

from __future__ import annotations

import io
import os
import stat
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from interface import archive
from interface.watch import Watcher, Watching, WatchOptions, probe
from internal import watched
from internal.errors import StorageFull
from internal.spool import Spool, SpoolWriter
from internal.store import Store
from tests.contract.destinations.images import make_instance, new_study_uid
from tests.contract.engine.conftest import HandClock
from tests.examples import examples

GO = threading.Event()


def image(number: int = 1, study_uid: str = "") -> bytes:
    return make_instance(study_uid or new_study_uid(), number, "A1")[1]


class Bench:
    """A watched folder with its spool."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.root, self.clock = store, root / "in", HandClock()
        self.root.mkdir()
        self.spool = Spool.open(root / "spool")
        self.writer: SpoolWriter = self.spool.writer("watch")
        self.watcher = self.make()

    def make(self, **changes: object) -> Watcher:
        given = {"stable_s": 0.0, "every_s": 10.0, "max_object_bytes": 1024 * 1024} | changes
        self.watcher = Watcher(WatchOptions("cd", self.root, **given), self.store, self.writer,  # type: ignore[arg-type]
                               self.clock)
        return self.watcher

    def put(self, name: str, data: bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def look(self) -> int:
        return self.watcher.look(GO)

    def spooled(self) -> int:
        return len(self.spool.scan_new())

    def ledger(self) -> dict[str, watched.Seen]:
        paths = [str(path.relative_to(self.root)) for path in self.root.rglob("*")]
        with self.store.reading() as tx:
            return watched.find(tx, "cd", paths)


@pytest.fixture
def bench(store: Store, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(store, tmp_path)
    yield made
    made.writer.close()


def test_what_lies_there_is_taken_once_and_stays(bench: Bench) -> None:
    paths = [bench.put(f"sub/{n}/IM{n}", image(n)) for n in range(5)]
    assert (bench.look(), bench.spooled()) == (5, 5)
    assert bench.make().look(GO) == 0 and bench.spooled() == 5  # as after a new start
    assert all(path.exists() for path in paths)
    data = bench.spool.open_entry(bench.spool.scan_new()[0].id).read()
    assert b"watch:cd" in data


def test_a_file_written_again_is_taken_again(bench: Bench) -> None:
    path = bench.put("a.dcm", image())
    bench.look()
    path.write_bytes(image())
    os.utime(path, ns=(1, 1))
    assert bench.look() == 1


def test_removed_only_when_wanted_and_accepted(bench: Bench) -> None:
    bench.make(remove=True)
    good, bad = bench.put("good.dcm", image()), bench.put("bad.dcm", image()[:500])
    other = bench.put("autorun.inf", b"[autorun]\n")
    bench.look()
    assert (good.exists(), bad.exists(), other.exists(), bench.spooled()) == (False, True, True, 1)
    assert bench.ledger()["bad.dcm"].refused == 1
    assert bench.put("good.dcm", image()).exists() and bench.look() == 1  # another one of the same name


def test_a_crash_between_accepting_and_removing_removes_at_the_next_start(bench: Bench) -> None:
    path = bench.put("a.dcm", image())
    bench.look()
    assert path.exists()
    bench.make(remove=True).look(GO)
    assert not path.exists() and bench.spooled() == 1


def test_a_file_that_still_grows_is_left_until_it_stands_still(bench: Bench) -> None:
    bench.make(stable_s=5.0)
    whole = image()
    path = bench.put("a.dcm", whole[:400])
    assert bench.look() == 0
    bench.clock.ms += 4_000
    path.write_bytes(whole)
    os.utime(path, ns=(5, 5))  # a copy that keeps the old time
    assert bench.look() == 0
    bench.clock.ms += 4_000
    assert bench.look() == 0
    bench.clock.ms += 1_100
    assert bench.look() == 1 and bench.ledger()["a.dcm"].refused == 0


@pytest.mark.attack("S29")
def test_a_cd_tree_is_found_by_content(bench: Bench, tmp_path: Path) -> None:
    import pydicom

    files = FileSet()
    study_uid = new_study_uid()
    for number in range(4):
        dataset = pydicom.dcmread(io.BytesIO(image(number, study_uid)))
        dataset.SeriesNumber, dataset.StudyID = 1, "1"
        files.add(dataset)
    files.write(bench.root / "CD")
    bench.put("CD/VIEWER.EXE", b"MZ" + bytes(500))
    assert (bench.root / "CD" / "DICOMDIR").exists()
    assert bench.look() == 4 and bench.watcher.refused == 0
    assert "DICOMDIR" in bench.ledger()["CD/DICOMDIR"].reason
    assert bench.ledger()["CD/VIEWER.EXE"].reason == "no DICOM file"


def zipped(members: dict[str, bytes], **options: object) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return out.getvalue()


def test_a_zip_is_read_by_content_whatever_its_names(bench: Bench) -> None:
    bench.make(remove=True)
    path = bench.put("study.bin", zipped({"../../etc/cron.d/x": image(1), "/abs": image(2)}))
    assert bench.look() == 2 and not path.exists()
    assert not (bench.root.parent / "etc").exists()


def test_a_zip_with_one_bad_image_stays_and_says_so(bench: Bench) -> None:
    bench.make(remove=True)
    path = bench.put("study.zip", zipped({"a": image(1), "b": image(2)[:500], "c": image(3)}))
    assert bench.look() == 2 and path.exists()
    seen = bench.ledger()["study.zip"]
    assert (seen.accepted, seen.refused) == (2, 1)
    assert bench.look() == 0
    with bench.store.reading() as tx:
        assert watched.refused(tx, "cd") == [seen] and watched.totals(tx, "cd") == (1, 2, 1)


@pytest.mark.parametrize("other", [b"%PDF-1.4 a report", image(2)[132:], zipped({"a": image(3)})],
                         ids=["report", "no preamble", "zip"])
def test_a_zip_that_holds_anything_else_is_never_removed(bench: Bench, other: bytes) -> None:
    bench.make(remove=True)
    path = bench.put("study.zip", zipped({"a": image(1), "other": other}))
    assert bench.look() == 1 and path.exists() and bench.ledger()["study.zip"].reason == "no DICOM file"
    assert bench.look() == 0 and bench.make(remove=True).look(GO) == 0 and path.exists()


def encapsulated(*, end: bool = True) -> bytes:
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import RLELossless

    dataset = pydicom.dcmread(io.BytesIO(image()))
    dataset.file_meta.TransferSyntaxUID = RLELossless
    dataset.PixelData = encapsulate([bytes(64), bytes(64)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue() if end else out.getvalue()[:-8]


def deflated() -> bytes:
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    dataset = pydicom.dcmread(io.BytesIO(image()))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.mark.parametrize("data", [image()[:-1], image()[:-300], image() + b"\0" * 3, encapsulated(end=False),
                                  encapsulated()[:-20], deflated()[:-9]])
def test_an_image_that_was_cut_off_is_refused_and_stays(bench: Bench, data: bytes) -> None:
    bench.make(remove=True)
    path, whole = bench.put("cut.dcm", data), [bench.put("a", encapsulated()), bench.put("b", deflated())]
    assert bench.look() == 2 and path.exists() and not any(one.exists() for one in whole)
    assert bench.ledger()["cut.dcm"].refused == 1 and "end" in bench.ledger()["cut.dcm"].reason


def bomb() -> bytes:
    return zipped({"a": bytes(64 * 1024 * 1024)})


@pytest.mark.attack("S28")
def test_hostile_archives_are_refused_within_bounds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FREE_BYTES", 1024 * 1024)
    monkeypatch.setattr(archive, "MAX_MEMBERS", 50)
    cases = {
        "bomb.zip": zipped({f"m{n}": b"x" * 128 + b"DICM" + bytes(4_000_000) for n in range(20)}),
        "many.zip": zipped({f"m{n}": b"" for n in range(51)}), "cut.zip": zipped({"a": image()})[:-30],
        "nested.zip": zipped({"in.zip": zipped({"a": image()})}), "rubbish.zip": b"PK\x03\x04" + os.urandom(5000),
    }
    encrypted = bytearray(zipped({"a": image()}))
    for at in (6, encrypted.rfind(b"PK\x01\x02") + 8):
        encrypted[at] |= 1
    cases["secret.zip"] = bytes(encrypted)
    for name, data in cases.items():
        bench.put(name, data)
    assert bench.look() == 0 and bench.spooled() == 0
    reasons = {name: seen.reason for name, seen in bench.ledger().items()}
    assert reasons["secret.zip"] == "the zip file is encrypted" and "no end" in reasons["cut.zip"]
    assert reasons["nested.zip"] == "no DICOM file" and "entries" in reasons["many.zip"]
    assert bench.ledger()["nested.zip"].refused == 0
    for name in ("bomb.zip", "rubbish.zip"):
        assert bench.ledger()[name].refused >= 1, name


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_archive_of_another_method_is_refused_and_the_next_is_taken(bench: Bench, method: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        file.writestr("a", image())
    data = bytearray(out.getvalue())
    at = 30 + 1 + 9  # into the compressed bytes
    data[at : at + 40] = b"\xff" * 40
    bench.put("a.zip", bytes(data))
    bench.put("b.dcm", image())
    assert bench.look() == 1 and "not read" in bench.ledger()["a.zip"].reason


def test_a_fault_of_our_own_ends_neither_look_nor_thread(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[object]:
        raise MemoryError

    monkeypatch.setattr("interface.watch.members", broken)
    bench.put("a.zip", zipped({"a": image()}))
    bench.put("b.dcm", image())
    assert bench.look() == 1 and bench.ledger()["a.zip"].refused == 1 and bench.look() == 0


def test_a_file_that_cannot_be_read_now_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fdopen

    class Failing(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise OSError(5, "Input/output error")

    def failing(descriptor: int, mode: str) -> io.BytesIO:
        os.close(descriptor)
        return Failing()

    bench.put("a.dcm", image())
    monkeypatch.setattr("interface.watch.os.fdopen", failing)
    assert bench.look() == 0 and bench.ledger() == {}
    monkeypatch.setattr("interface.watch.os.fdopen", real)
    assert bench.look() == 1


@pytest.mark.attack("S28")
def test_links_pipes_and_folders_that_may_not_be_read_are_left(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret.dcm"
    secret.write_bytes(image())
    (bench.root / "link.dcm").symlink_to(secret)
    (bench.root / "folder").symlink_to(tmp_path)
    os.mkfifo(bench.root / "pipe")
    bench.put("closed/a.dcm", image())
    if os.geteuid() != 0:
        (bench.root / "closed").chmod(0)
    bench.put("good.dcm", image())
    taken = bench.look()
    assert taken == (2 if os.geteuid() == 0 else 1)
    (bench.root / "closed").chmod(stat.S_IRWXU)


def test_names_of_any_bytes(bench: Bench) -> None:
    for name in (b"\xff\xfe.dcm", "é 例.dcm".encode(), b"a\nb", b"-rf", b"x" * 255):
        (Path(os.fsdecode(os.fsencode(bench.root))) / os.fsdecode(name)).write_bytes(image())
    assert bench.look() == 5 and bench.make().look(GO) == 0


def test_uids_that_differ_or_are_none_are_refused(bench: Bench) -> None:
    whole = image()
    other = whole.replace(b"\x02\0\x03\0UI", b"\x02\0\x03\0UI", 1)
    meta = FileMetaDataset()
    assert meta is not None and other == whole
    at = whole.find(b"\x08\0\x18\0UI") + 8
    bench.put("renamed.dcm", whole[:at] + b"9" + whole[at + 1 :])
    study = whole.find(b"\x20\0\x0d\0UI") + 8
    bench.put("nouid.dcm", whole[:study] + b"/" + whole[study + 1 :])
    assert bench.look() == 1  # the file meta of the first does not count: the data set names the image
    assert bench.ledger()["nouid.dcm"].reason == "one of its UIDs is not a UID"


def test_too_large_is_refused_and_a_full_disk_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.make(max_object_bytes=700)
    bench.put("large.dcm", image())
    assert bench.look() == 0 and "larger" in bench.ledger()["large.dcm"].reason
    bench.make()
    path = bench.put("a.dcm", image())
    full = bench.spool.free_bytes() * 2
    monkeypatch.setattr(bench.spool, "_min_free_bytes", full)
    with pytest.raises(StorageFull):
        bench.look()
    assert path.exists() and "a.dcm" not in bench.ledger()
    monkeypatch.setattr(bench.spool, "_min_free_bytes", 0)
    assert bench.look() == 1


@settings(deadline=None, max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=400), st.integers(0, 800), st.binary(max_size=30))
def test_no_file_breaks_the_watcher(tmp_path: Path, rubbish: bytes, at: int, patch: bytes) -> None:
    """Without the ledger: acceptance alone decides, and raises nothing but refusals."""
    from internal.errors import MismatchedInstance, NotDicom
    from internal.intake import accept
    from internal.model import Arrival

    spool = Spool.open(tmp_path / "spool", fsync=False)
    writer = spool.writer("w")
    whole = image()
    try:
        for data in (rubbish, whole[:at] + patch + whole[at + len(patch) :], whole[: at + 140] + rubbish):
            try:
                accept(writer, io.BytesIO(data), Arrival(1), 1024 * 1024)
            except (NotDicom, MismatchedInstance):
                pass
    finally:
        writer.close()
    assert not list((tmp_path / "spool" / "tmp" / "w").iterdir())


def test_the_thread_goes_on_after_a_folder_was_away(bench: Bench, tmp_path: Path) -> None:
    from interface.roles import SystemClock

    bench.writer.close()
    there = tmp_path / "there"
    there.mkdir()
    options = [WatchOptions("gone", tmp_path / "gone", 0.05, 0.0), WatchOptions("there", there, 0.05, 0.0)]
    assert [probe(one).ok for one in options] == [False, True]
    watching = Watching(options, bench.store, bench.spool, SystemClock())
    watching.start()
    try:
        (there / "a.dcm").write_bytes(image())
        ended = threading.Event()
        for _ in range(300):
            if bench.spooled():
                break
            ended.wait(0.02)
        assert bench.spooled() == 1
    finally:
        assert watching.stop(10)
    assert watching.report()["there"]["accepted"] == 1
    assert generate_uid()
