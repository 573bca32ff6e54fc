"""Many faults at once on one running router and sandbox: each with studies of its own, one oracle for all.

A `Fault` is a row of the table; `run_together` brings all of its rows about at the same time and returns a verdict
for each. What the rows look into (jobs, held bytes) is read from the router's database, as its commands do.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import requests
from pydicom import config as pydicom_config
from pynetdicom import AE

from internal import jobs
from internal.dicomfile import read_meta
from internal.job_list import JobRow
from internal.store import Store
from tests.faults.oracle import Told, find_wrongs
from tests.system.images import Image, Study, dataset_sha256, make_study
from tests.system.rig import Rig, wait_for

WAIT_S = 60.0
#: A sender whose association died does not always notice; then this decides.
NO_ANSWER_S = 6.0
Edit = Callable[[pydicom.FileDataset, int], None]

#: What the router is told beside the rig's usual times: outages of seconds, a second destination and a webhook that are
#: both away all the time, so that every fault is met beside them.
SATUSEHAT = "index_lag = 2s\nrequest_timeout = 2s\nwebhook_url = http://127.0.0.1:9/hook"
ROUTER = {"retry_max": "1s", "settle_max": "5s", "send_to": "satusehat, archive"}
SANDBOX = ("--allow-duplicates", "--index-delay", "1")


@dataclass(frozen=True)
class Verdict:
    """What became of one fault: "survived", or what went wrong."""

    id: str
    text: str
    result: str

    @property
    def survived(self) -> bool:
        return self.result == "survived"


@dataclass(frozen=True)
class Fault:
    """One row. `platform`: faults of the sandbox for this study alone. `order`: fields of its order, None: none.

    `edit` changes each data set, `patch` bytes of each file. `send` brings the images (all, one after another, unless
    it says otherwise). `first`: state and reason code that the delivery must come to; then `heal`, after which it must
    be done, or with `heal` None stay. `check` returns what else is wrong, "" for nothing.
    """

    id: str
    text: str
    platform: tuple[dict[str, Any], ...] = ()
    order: dict[str, Any] | None = field(default_factory=dict)
    images: int = 2
    series: int = 1
    accession: str = ""
    edit: Edit | None = None
    patch: tuple[bytes, bytes] | None = None
    send: Callable[[Stand, Study], None] | None = None
    first: tuple[str, str] = ("done", "")
    heal: Callable[[Stand, Study], None] | None = None
    check: Callable[[Stand, Study], str] | None = None


class Stand:
    """A rig under test with everything that was sent and acknowledged in it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.data = rig.folder / "data"
        self.studies: list[Study] = []
        self.acknowledged: list[Image] = []
        self.sent: set[str] = set()
        self.open: list[Any] = []
        self._number = 0

    def start(self, environment: dict[str, str] | None = None) -> None:
        """Start sandbox and router with the times and the absent neighbours of this module."""
        archive = self.rig.folder / "not-mounted" / "archive"
        self.rig.write_config(satusehat=SATUSEHAT, extra=f"[folder:archive]\npath = {archive}", **ROUTER)
        self.rig.start_sandbox(*SANDBOX)
        self.rig.start_router(environment=environment)

    def close(self) -> None:
        """Let go of what senders still hold open."""
        for one in self.open:
            one.abort()
        self.open.clear()

    def make(self, fault: Fault) -> Study:
        """Write the files of a fault's study."""
        self._number += 1
        accession = fault.accession or f"{fault.id}N{self._number}".upper()
        folder = self.rig.folder / "images" / f"{self._number}"
        study = make_study(folder, f"N{self._number}", fault.images, series=fault.series)
        images = []
        for number, image in enumerate(study.images):
            images.append(_rewritten(image.path, number, accession, fault))
        made = Study(images[0].study_uid if images else study.study_uid, accession, study.patient_id, study.modality,
                     images)
        self.studies.append(made)
        return made

    def order(self, accession: str, **fields: Any) -> None:
        """Register an order at the sandbox, found at once."""
        self.rig.order(Study("", accession, "", "CT"), **{"indexed": True, **fields})

    def store(self, images: Sequence[Image], *, called: str = "DCMROUTER", end: str = "release") -> list[int]:
        """Send images over one association; return the statuses (-1: no answer). `end`: release, abort or stay."""
        ae = AE(ae_title="MODALITY")
        for pair in dict.fromkeys(_context(image) for image in images):
            ae.add_requested_context(pair[0], pair[1])
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = NO_ANSWER_S
        association = ae.associate("127.0.0.1", self.rig.dicom_port, ae_title=called)
        if not association.is_established:
            return [-1] * len(images)
        statuses = []
        for image in images:
            self.sent.add(image.sop_uid)
            status = association.send_c_store(str(image.path)) if association.is_established else None
            statuses.append(int(getattr(status, "Status", -1)))
            if statuses[-1] == 0:
                self.acknowledged.append(image)
        if end == "stay":
            self.open.append(association)
        elif association.is_established:
            association.abort() if end == "abort" else association.release()
        return statuses

    def send_all(self, study: Study, timeout_s: float = 30.0) -> None:
        """Send what is not acknowledged yet until it is, as a modality does."""
        left = [image for image in study.images if image not in self.acknowledged]

        def all_sent() -> bool:
            if left:
                self.store(left)
            left[:] = [image for image in left if image not in self.acknowledged]
            return not left

        wait_for(all_sent, timeout_s, f"{study.accession_number} acknowledged", every_s=0.2)

    def store_url(self) -> str:
        """Return the address of the router's database."""
        return f"sqlite://{self.data / 'index.db'}"

    def rows(self) -> list[JobRow]:
        """Return every job."""
        store = Store.open(self.store_url(), read_only=True)
        try:
            with store.reading() as tx:
                return jobs.list_jobs(tx, limit=100_000)
        finally:
            store.close()

    def jobs_of(self, study: Study, rows: Sequence[JobRow] | None = None) -> list[JobRow]:
        """Return the study's deliveries to the platform."""
        return [row for row in (self.rows() if rows is None else rows)
                if row.study_uid == study.study_uid and row.lane == "satusehat" and row.kind == "deliver"]

    def kept(self) -> dict[str, set[str]]:
        """Return the SHA-256 of every data set that the index knows to be on disk, by SOP Instance UID."""
        store = Store.open(self.store_url(), read_only=True)
        found: dict[str, set[str]] = {}
        try:
            with store.reading() as tx:
                for uid, sha256 in tx.rows("SELECT sop_uid, sha256 FROM instance WHERE purged_at IS NULL"):
                    found.setdefault(uid, set()).add(sha256)
        finally:
            store.close()
        return found

    def told(self) -> Told:
        """Return what has been told so far."""
        rows = self.rows()
        done = {study.study_uid for study in self.studies
                if (found := self.jobs_of(study, rows)) and all(row.state == "done" for row in found)}
        return Told(self.acknowledged, self.sent, done, self.kept())

    def order_of_somebody(self, accession: str, name: str) -> None:
        """Register an order whose subject is named, as hospital systems send it."""
        self.order(accession)
        found = next(one for one in self.rig.state()["resources"]["ServiceRequest"]
                     if any(id_["value"] == accession for id_ in one["identifier"]))
        found["subject"]["display"] = name
        requests.post(f"{self.rig.sandbox_url}/_sandbox/resources", json=found, timeout=10).raise_for_status()

    def retry(self, study: Study) -> None:
        """Let a person ask for the study again."""
        reply = self.rig.run("retry", study.study_uid)
        assert reply.returncode == 0, reply.stderr

    def resume(self, study: Study | None = None) -> None:
        """Let a person open the lane again."""
        assert self.rig.run("lane", "satusehat", "resume").returncode == 0


def _context(image: Image) -> tuple[str, str]:
    with image.path.open("rb") as file:
        meta = read_meta(file)
    return meta.sop_class_uid, meta.transfer_syntax_uid


def _rewritten(path: Path, number: int, accession: str, fault: Fault) -> Image:
    settings = pydicom_config.settings
    before = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = pydicom_config.IGNORE
    try:
        dataset = pydicom.dcmread(path)
        dataset.AccessionNumber = accession
        if fault.edit is not None:
            fault.edit(dataset, number)
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)  # save_as would not change the endianness
    finally:
        settings.reading_validation_mode, settings.writing_validation_mode = before
    if fault.patch is not None:
        data = path.read_bytes()
        assert fault.patch[0] in data and len(fault.patch[0]) == len(fault.patch[1])
        path.write_bytes(data.replace(*fault.patch))
    return Image(path, str(dataset.SOPInstanceUID), str(dataset.StudyInstanceUID), dataset_sha256(path))


def dataset_bytes(image: Image) -> bytes:
    """Return the data set of an image's file."""
    data = image.path.read_bytes()
    return data[read_meta(io.BytesIO(data)).dataset_offset:]


def scoped(platform: dict[str, Any], accession: str) -> dict[str, Any]:
    """Return a fault of the sandbox that meets only the requests of one accession."""
    where = "query_contains" if platform.get("method") == "GET" else "body_contains"
    return {where: accession, **platform}


def run_together(stand: Stand, faults: Sequence[Fault], wait_s: float = WAIT_S) -> list[Verdict]:
    """Bring every fault about at the same time, heal them, and return what became of each."""
    cases = [(fault, stand.make(fault)) for fault in faults]
    wrong: dict[str, str] = {}
    for fault, study in cases:
        if fault.platform:
            stand.rig.faults(*(scoped(one, study.accession_number) for one in fault.platform))
        if fault.order is not None:
            stand.order(study.accession_number.strip(" \0"), **fault.order)
    for fault, study in cases:
        _attempt(wrong, fault, lambda f=fault, s=study: (f.send or Stand.send_all)(stand, s))  # type: ignore[misc]
    _await(stand, [(fault, study, fault.first) for fault, study in cases if fault.id not in wrong], wrong, wait_s)
    healed = [(fault, study) for fault, study in cases if fault.heal is not None and fault.id not in wrong]
    for fault, study in healed:
        _attempt(wrong, fault, lambda f=fault, s=study: f.heal(stand, s))  # type: ignore[misc]
    _await(stand, [(fault, study, ("done", "")) for fault, study in healed if fault.id not in wrong], wrong, wait_s)
    return _judge(stand, cases, wrong)


def wait_done(stand: Stand, study: Study, timeout_s: float = WAIT_S) -> None:
    """Wait until the study is delivered with everything of it that was acknowledged."""
    wait_for(lambda: _is_there(stand, study, ("done", ""), stand.rows()), timeout_s,
             f"{study.accession_number} delivered", every_s=0.3)


def _attempt(wrong: dict[str, str], fault: Fault, act: Callable[[], object]) -> None:
    try:
        act()
    except AssertionError as error:
        wrong[fault.id] = f"{error}"[:200]


def _await(
    stand: Stand, cases: Sequence[tuple[Fault, Study, tuple[str, str]]], wrong: dict[str, str], wait_s: float,
) -> None:
    left = list(cases)

    def all_there() -> bool:
        rows = stand.rows()
        left[:] = [case for case in left if not _is_there(stand, case[1], case[2], rows)]
        return not left

    try:
        wait_for(all_there, wait_s, "every fault where it must be", every_s=0.5)
    except AssertionError:
        for fault, study, wanted in left:
            now = [(str(row.state), row.reason_code, row.receipts) for row in stand.jobs_of(study)]
            wrong[fault.id] = f"not {'/'.join(wanted).rstrip('/')} within {wait_s:.0f} s: {now}"


def _is_there(stand: Stand, study: Study, wanted: tuple[str, str], rows: Sequence[JobRow]) -> bool:
    found = stand.jobs_of(study, rows)
    state, code = wanted
    if not found or any(row.state != state for row in found) or (code and {row.reason_code for row in found} != {code}):
        return False
    told = {image.sop_uid for image in stand.acknowledged if image.study_uid == study.study_uid}
    return state != "done" or sum(row.receipts for row in found) == len(told)


def _never_struck(met: Sequence[dict[str, Any]], fault: Fault, study: Study) -> str:
    """Return what is wrong when a fault of the sandbox met no request: the row has shown nothing then."""
    mine = [one for one in met if study.accession_number in (one.get("query_contains"), one.get("body_contains"))]
    idle = [one for one in mine if not one["hits"]]
    return f"{len(idle)} faults never struck" if idle or len(mine) != len(fault.platform) else ""


def _judge(stand: Stand, cases: Sequence[tuple[Fault, Study]], wrong: dict[str, str]) -> list[Verdict]:
    wrongs = find_wrongs(stand.rig.state(), stand.told())
    met = stand.rig.faults_met()
    verdicts = []
    for fault, study in cases:
        found = wrong.get(fault.id, "")
        uids = [study.study_uid, *(image.sop_uid for image in study.images)]
        mine = [text for text in wrongs if any(text.endswith(uid) for uid in uids)]
        wrongs = [text for text in wrongs if text not in mine]
        found = found or "; ".join(mine) or _never_struck(met, fault, study)
        if not found and fault.check is not None:
            found = fault.check(stand, study)
        verdicts.append(Verdict(fault.id, fault.text, found or "survived"))
    if wrongs:
        verdicts.append(Verdict("all", "what belongs to no single fault", "; ".join(wrongs)))
    log = stand.rig.log()
    told = [word for word in ("Contoh", "Pasien", "19800101", "sandbox-secret", "Traceback") if word in log]
    if told:
        verdicts.append(Verdict("log", "no patient, secret or raw traceback in the log", f"found {told}"))
    return verdicts
