"""One data set through rules and back into a file, for the tests of this folder."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from internal import dicomfile, element_bytes, elements, scan
from internal.config import RuleText
from internal.model import Arrival
from internal.rewrite import Rewritten, rewrite
from internal.rules import Facts, RuleSet, compile_rules
from internal.rules.edits import KeyBytes, LookUp

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
CT = "1.2.840.10008.5.1.4.1.1.2"
KEYS = KeyBytes(b"a key for tests, long enough to be")
ARRIVED_AT = 1_790_000_000_123
Table = Mapping[tuple[str, str], str]


def rule(name: str = "one", **entries: str) -> RuleText:
    """Return a rule as it would be written."""
    return RuleText(name, entries)


def compiled(*texts: RuleText, destinations: tuple[str, ...] = ("pacs", "research", "satusehat")) -> RuleSet:
    """Return a set of rules."""
    return compile_rules(texts, destinations, lambda source: "")


def image(**values: object) -> Dataset:
    """Return a small CT image; `values` by keyword on top."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CT, "1.2.3.4.5"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.Modality, dataset.PatientID, dataset.PatientName = "CT", "P1", "DOE^JANE"
    dataset.StudyDate, dataset.StudyTime = "20260131", "101500"
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.SamplesPerPixel = 4, 8, 16, 1
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 15, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    if "PixelData" not in dataset:
        dataset.PixelData = bytes(range(64))
    dataset["PixelData"].VR = "OW"
    return dataset


def encoded(dataset: Dataset, syntax: str = EXPLICIT) -> bytes:
    """Return a data set as bytes."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != BIG, syntax == IMPLICIT
    write_dataset(buffer, dataset)
    return element_bytes.deflated(buffer.getvalue()) if syntax == DEFLATED else buffer.getvalue()


def facts_of(body: bytes, syntax: str = EXPLICIT, **arrival: str) -> Facts:
    """Return what rules see of a data set."""
    header = scan.scan(body, syntax)
    return Facts(header, Arrival(ARRIVED_AT, **arrival), lambda: elements.read(io.BytesIO(body), 0, len(body), syntax))


def rewritten(
    body: bytes, rules: RuleSet, destination: str = "pacs", syntax: str = EXPLICIT, table: Table | None = None,
    find: Callable[[LookUp, str], str | None] | None = None,
) -> Rewritten:
    """Return the data set as rules change it for a destination."""
    facts = facts_of(body, syntax)
    received = elements.read(io.BytesIO(body), 0, len(body), syntax)
    look = find or (lambda source, key: (table or {}).get((source.name, key)))
    return rewrite(received, facts, rules, rules.edits_for(facts, destination), look, KEYS)


def file_of(body: bytes, done: Rewritten) -> bytes:
    """Return the Part 10 file that leaves."""
    header = done.header
    parts = [part if isinstance(part, bytes) else body[part[0] : part[1]] for part in done.pieces]
    meta = dicomfile.canonical_meta(header.sop_class_uid, header.sop_uid, header.transfer_syntax_uid)
    return meta + b"".join(parts)


def after(dataset: Dataset, *actions: str, syntax: str = EXPLICIT, table: Table | None = None) -> Dataset:
    """Return an image as pydicom reads it after these actions."""
    body = encoded(dataset, syntax)
    done = rewritten(body, compiled(rule(do="\n".join(actions), **{"for": "pacs"})), syntax=syntax, table=table)
    return dcmread(io.BytesIO(file_of(body, done)))
