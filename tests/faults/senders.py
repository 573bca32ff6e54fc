"""Senders and what they send (groups E and F): rows that are run together."""

from __future__ import annotations

from typing import Any

import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import UID, generate_uid

from tests.contract.dimse.wire import CT, EXPLICIT, Closed, Wire, context, data_set
from tests.faults.stand import Edit, Fault, Stand, dataset_bytes
from tests.system.images import Image, Study, dataset_sha256

PRIVATE_CLASS = "1.3.12.2.1107.5.99.3.1"


# --- E: how it is sent ---------------------------------------------------------------------------------------------

def aborted(stand: Stand, study: Study) -> None:
    stand.store(study.images, end="abort")


def twice(stand: Stand, study: Study) -> None:
    stand.store([*study.images, *study.images])


def other_content(stand: Stand, study: Study) -> None:
    """The first image once more under its UID, with another pixel."""
    stand.send_all(study)
    first = study.images[0]
    other = first.path.with_name("other.dcm")
    data = first.path.read_bytes()
    other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert stand.store([Image(other, first.sop_uid, first.study_uid, dataset_sha256(other))]) == [0]


def interleaved(stand: Stand, study: Study) -> None:
    stand.store(study.images[::2], end="stay")
    stand.store(study.images[1::2])
    stand.open.pop().release()


def first_of_all(stand: Stand, study: Study) -> None:
    stand.store(study.images[:1])


def never_released(stand: Stand, study: Study) -> None:
    stand.store(study.images, end="stay")


def in_pieces(size: int) -> Any:
    """Return a sender whose PDVs carry `size` bytes each."""

    def send(stand: Stand, study: Study) -> None:
        with Wire(stand.rig.dicom_port) as wire:
            wire.associate()
            for image in study.images:
                stand.sent.add(image.sop_uid)
                assert wire.store(1, image.sop_uid, dataset_bytes(image), fragment=size).status == 0
                stand.acknowledged.append(image)
            wire.release()

    return send


def after_an_empty_association(stand: Stand, study: Study) -> None:
    with Wire(stand.rig.dicom_port) as wire:
        wire.associate()
        assert wire.echo() == 0
        wire.release()
    before = {row.study_uid for row in stand.rows()}
    assert "" not in before
    stand.send_all(study)


def to_another_title(stand: Stand, study: Study) -> None:
    """Accepted or refused, as configured; then to the right one."""
    stand.store(study.images, called="SOMEBODY")
    stand.send_all(study)


def transfer_syntax(uid: str) -> Edit:
    """Return an edit that makes the data set one of this transfer syntax."""

    def edit(dataset: pydicom.FileDataset, number: int) -> None:
        dataset.file_meta.TransferSyntaxUID = UID(uid)
        if UID(uid).is_compressed and uid != "1.2.840.10008.1.2.1.99":
            dataset.PixelData = encapsulate([b"\xff\xd8\xff\xe0made by a test\xff\xd9 "])
            dataset["PixelData"].is_undefined_length = True

    return edit


# --- F: what is sent -----------------------------------------------------------------------------------------------

def sets(**values: Any) -> Edit:
    """Return an edit that sets elements; None removes one."""

    def edit(dataset: pydicom.FileDataset, number: int) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


def of_class(uid: str, modality: str) -> Edit:
    """Return an edit that makes it an object without pixels."""

    def edit(dataset: pydicom.FileDataset, number: int) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = UID(uid)
        dataset.Modality = modality
        for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel",
                        "PixelRepresentation", "PhotometricInterpretation"):
            delattr(dataset, keyword)

    return edit


def another_patient(dataset: pydicom.FileDataset, number: int) -> None:
    if number:
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Lain^Orang", "OTHER", "19551231"


def refused(*wrong: tuple[str, bytes]) -> Any:
    """Return a sender that tries bad data sets (command's UID, bytes) first; none may be answered with success."""

    def send(stand: Stand, study: Study) -> None:
        for number, (sop_uid, body) in enumerate(wrong):
            with Wire(stand.rig.dicom_port) as wire:
                wire.associate(context(1, CT, EXPLICIT))
                try:
                    status = wire.store(number + 1, sop_uid, body).status
                except Closed:
                    continue
                assert status != 0, f"bad data set {number} was answered with success"
        stand.send_all(study)

    return send


def corrected(stand: Stand, study: Study) -> None:
    """A person writes the accession number by hand."""
    stand.order("BYHAND1")
    reply = stand.rig.run("accession", study.study_uid, "BYHAND1", "--reason", "no number came", "--by", "rina")
    assert reply.returncode == 0, reply.stderr


def same_patient(stand: Stand, study: Study) -> None:
    reply = stand.rig.run("same-patient", study.study_uid, "--reason", "name was changed", "--by", "rina")
    assert reply.returncode == 0, reply.stderr


def has_no_start(stand: Stand, study: Study) -> str:
    """Return what is wrong unless the ImagingStudy leaves its start open."""
    (found,) = [one for one in stand.rig.state()["resources"]["ImagingStudy"]
                if any(id_["value"].endswith(study.study_uid) for id_ in one["identifier"])]
    return f"a start was invented: {found['started']}" if "started" in found else ""


def _uid(part: int) -> str:
    return f"{generate_uid(prefix=None)}"[:40] + f".{part}"


BAD = "1.2.826.0.1.77"
FAULTS = [
    Fault("E1", "A-ABORT in the middle of an association", send=aborted),
    Fault("E3", "every image twice in one association", send=twice),
    Fault("E5", "an image again with other content", send=other_content, first=("held", "conflict")),
    Fault("E6", "two associations bring one study in turns", images=6, send=interleaved),
    Fault("E9", "a long pause between two images", send=first_of_all, heal=Stand.send_all),
    Fault("E10", "the association is never released", send=never_released),
    Fault("E15a", "PDVs of 37 bytes", send=in_pieces(37)),
    Fault("E15b", "PDVs of 15,999 bytes", send=in_pieces(15_999)),
    Fault("E17a", "implicit VR", edit=transfer_syntax("1.2.840.10008.1.2")),
    Fault("E17b", "big endian", edit=transfer_syntax("1.2.840.10008.1.2.2")),
    Fault("E17c", "JPEG lossless", edit=transfer_syntax("1.2.840.10008.1.2.4.70")),
    Fault("E17d", "JPEG 2000", edit=transfer_syntax("1.2.840.10008.1.2.4.90")),
    Fault("E17e", "deflated", edit=transfer_syntax("1.2.840.10008.1.2.1.99")),
    Fault("E18", "a private storage class", edit=of_class(PRIVATE_CLASS, "OT")),
    Fault("E20", "an association without a C-STORE makes no study", send=after_an_empty_association),
    Fault("E21", "another called AE title first", send=to_another_title),
    Fault("F1", "no accession number; a person writes it", accession=" ", order=None, first=("waiting", "no-accession"),
          heal=corrected),
    Fault("F2a", "accession padded with blanks", accession=" F2A PAD  "),
    Fault("F2b", "accession in lower case", accession="f2b-lower"),
    Fault("F2c", "accession with |", accession="F2C|PIPE"),
    Fault("F2d", "accession with & and %", accession="F2D&A%20B"),
    Fault("F2e", "accession with #", accession="F2E#HASH"),
    Fault("F2f", "accession with / and ?", accession="F2F/SL?A=1"),
    Fault("F2g", "accession of 24 characters", accession="F2G123456789012345678901"),
    Fault("F2h", "accession with a comma", accession="F2H,AB"),
    Fault("F4", "two patients in one study; a person says it is one", edit=another_patient,
          first=("held", "mixed-patients"), heal=same_patient),
    Fault("F5a", "Latin-1 bytes without a character set", patch=(b"Contoh^Pasien", b"Cont\xf6h^Pasi\xe9n")),
    Fault("F5b", "Latin-1 bytes declared as UTF-8", edit=sets(SpecificCharacterSet="ISO_IR 192"),
          patch=(b"Contoh^Pasien", b"Cont\xf6h^Pasi\xe9n")),
    Fault("F5c", "ISO 2022 bytes", edit=sets(SpecificCharacterSet=["", "ISO 2022 IR 87"]),
          patch=(b"Contoh^Pasien", b"Con\x1b$B;3\x1b(Ben")),
    Fault("F6", "data sets without study, series, instance or class UID are refused", send=refused(
        (f"{BAD}.1", data_set(f"{BAD}.1", study="")), (f"{BAD}.2", data_set(f"{BAD}.2", series="")),
        (f"{BAD}.3", data_set("")), (f"{BAD}.4", data_set(f"{BAD}.4", sop_class="")))),
    Fault("F7", "UIDs that are paths, letters or too long are refused", send=refused(
        ("../../etc/cron.d/x", data_set("../../etc/cron.d/x")), ("abc", data_set("abc")),
        (f"{BAD}.5", data_set(f"{BAD}.5", study="../../x")), (f"{BAD}.6", data_set(f"{BAD}.6", study="1" * 70)))),
    Fault("F8", "command and data set name different instances", send=refused((f"{BAD}.7", data_set(f"{BAD}.8")))),
    Fault("F9", "an empty data set, and garbage", send=refused((f"{BAD}.9", b""), (f"{BAD}.10", b"\xa5" * 5000))),
    Fault("F11a", "study date 00000000", edit=sets(StudyDate="00000000"), check=has_no_start),
    Fault("F11b", "study date 20231301, time 2400", edit=sets(StudyDate="20231301", StudyTime="2400"),
          check=has_no_start),
    Fault("F12", "100 series", images=100, series=100),
    Fault("F13a", "a structured report", edit=of_class("1.2.840.10008.5.1.4.1.1.88.11", "SR")),
    Fault("F13b", "an encapsulated PDF", edit=of_class("1.2.840.10008.5.1.4.1.1.104.1", "DOC")),
    Fault("F13c", "a presentation state", edit=of_class("1.2.840.10008.5.1.4.1.1.11.1", "PR")),
    Fault("F13d", "an RT structure set", edit=of_class("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")),
    Fault("F14a", "instance number is no number", patch=(b"IS\x02\x001 ", b"IS\x02\x00X "), images=1),
    Fault("F14b", "no instance number, no series number", edit=sets(InstanceNumber=None, SeriesNumber=None)),
    Fault("F14c", "no modality", edit=sets(Modality=None)),
    Fault("F15a", "a name with markup and control characters", edit=sets(
        PatientName="<script>alert(1)</script>\x1b]0;x\x07^Pasien")),
    Fault("F15b", "a name of 500 characters", edit=sets(PatientName="Contoh" * 80 + "^Pasien")),
    Fault("F16a", "a study of 1900", edit=sets(StudyDate="19000101")),
    Fault("F16b", "a study of 2099", edit=sets(StudyDate="20990101")),
]

