"""`withdraw`: take a delivered study back with two people, and the letter for what only the ministry can remove.

Reads and writes the database directly, whether or not the router runs. Changes when the letter has to say more.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from zoneinfo import ZoneInfo

from interface.acting import changing
from interface.cli_cases import one_delivery, person
from interface.cli_database import now_ms, opened
from internal import jobs, withdrawals
from internal.config import Settings
from internal.errors import NotAllowed, NotFound
from internal.model import Job
from internal.store import Store

_LETTER = """\
Perihal: Permohonan penghapusan citra DICOM di SATUSEHAT (NIDR)

Yth. Tim SATUSEHAT, Kementerian Kesehatan RI

Dengan hormat,

Fasilitas kami (Organization ID {organization}) telah mengirim sebuah studi pencitraan ke order atau pasien yang salah.
ImagingStudy-nya sudah kami ubah menjadi "entered-in-error". Citranya tidak dapat kami hapus sendiri; mohon dihapus:

  ImagingStudy       : {imaging_study}
  ServiceRequest     : {service_request}
  Accession Number   : {accession}
  Study Instance UID : {study}
  Jumlah citra       : {count}
  Alasan             : {reason}
  Diminta oleh       : {asked_by}
  Dikonfirmasi oleh  : {confirmed_by}
  Tanggal            : {day}

Daftar citra (Series Instance UID / SOP Instance UID):
{instances}

Atas bantuannya kami ucapkan terima kasih.

(nama, jabatan, tanda tangan)
"""


def withdraw(options: argparse.Namespace, settings: Settings) -> int:
    """Ask (--reason), confirm (--confirm CODE --by NAME) or print the letter (--letter)."""
    with opened(settings) as store:
        with store.reading() as tx:
            job = jobs.job(tx, one_delivery(tx, options.study))
        if options.letter:
            print(_letter(store, job, settings), end="")
            return 0
        if options.confirm:
            with changing(store, settings, "study.withdraw-confirm", study_uid=job.study_uid, by=options.by) as tx:
                job_id = withdrawals.confirm(
                    tx, job.study_uid, job.part, options.confirm, who=person(options), now=now_ms())
            print(f"job {job_id}: the ImagingStudy becomes entered-in-error; the study is never sent again.\n"
                  "The images only the ministry can remove: print the letter with --letter")
            return 0
        if not options.reason:
            raise NotAllowed("--reason asks for it, --confirm CODE confirms it, --letter prints the letter")
        with changing(store, settings, "study.withdraw-ask", study_uid=job.study_uid, by=options.by,
                      reason=options.reason) as tx:
            code = withdrawals.request(tx, job.job_id, reason=options.reason, who=person(options), now=now_ms())
    print(f"asked by {person(options)}. Within a day a second person confirms:\n"
          f"  main.py withdraw {options.study} --confirm {code} --by NAME")
    return 0


def _letter(store: Store, job: Job, settings: Settings) -> str:
    with store.reading() as tx:
        decision = withdrawals.find_confirmed(tx, job.study_uid, job.part)
        receipts = withdrawals.receipts_of(tx, job)
    if decision is None:
        raise NotFound("this study was not taken back, or nobody has confirmed it yet")
    zone = ZoneInfo(settings.satusehat.tz_name)
    return _LETTER.format(
        organization=settings.satusehat.organization_id, imaging_study=job.facts.get("imaging_study_id", "-"),
        service_request=job.facts.get("service_request_id", "-"), accession=job.accession or job.part,
        study=job.study_uid, count=len(receipts), reason=decision.reason, asked_by=_name(decision.who),
        confirmed_by=_name(decision.body["confirmed_by"]),
        day=datetime.fromtimestamp(decision.at / 1000, zone).strftime("%d-%m-%Y"),
        instances="\n".join(f"  {series} / {sop}" for series, sop in receipts))


def _name(who: str) -> str:
    """Return the name for a letter, without the way by which the person came."""
    return who.partition(":")[2] or who
