"""Which DCM modality code a series gets: what the device says, else what its SOP class says, else OT.

Used by the ImagingStudy builder. Layer 1, imports nothing of ours. Changes when DICOM defines a modality,
or a device in the field says one that DICOM never defined.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_CID_29 = (
    "AR BDUS BI BMD CFM CR CT DMS DG DX ECG EEG EMG EOG EPS ES GM HC HD IO IVOCT IVUS KER LEN LS MG MR NM OAM OCT OP "
    "OPM OPT OPTBSV OPTENF OPV OSS OT PA POS PT PX RESP RF RG RTIMAGE SM SRF TG US VA XA XAPROTOCOL XC"
)
_CID_33 = (
    "ANN ASMT AU CTPROTOCOL DOC FID IOL KO M3D PLAN PR REG RTDOSE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT "
    "RWV SEG SMR SR STAIN TEXTUREMAP"
)
#: Codes of image acquisition. Source: PS3.16 CID 29.
ACQUISITION = frozenset(_CID_29.split())
#: Codes of series that hold something made from images, or no image at all. Source: PS3.16 CID 33.
DERIVED = frozenset(_CID_33.split())
#: Codes that devices send and that are retired or were never defined. Source: PS3.3 C.7.3.1.1.1; satusehat facts 5.
REPLACED = {
    "DR": "DX", "CF": "RF", "DF": "RF", "VF": "RF", "DS": "XA", "CD": "US", "DD": "US", "EC": "US", "ST": "NM",
    "MA": "MR", "MS": "MR", "OPR": "OP", "FS": "OP", "FA": "OP", "DM": "GM", "AS": "ES", "CS": "ES", "CP": "ES",
    "LP": "ES",
}

_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: SOP class (without the storage root) -> modality. Source: PS3.4 B.5, PS3.3 A.1.
_OF_SOP_CLASS = {
    "1": "CR", "1.1": "DX", "1.1.1": "DX", "1.2": "MG", "1.2.1": "MG", "1.3": "IO", "1.3.1": "IO",
    "2": "CT", "2.1": "CT", "2.2": "CT", "3": "US", "3.1": "US", "6": "US", "6.1": "US", "6.2": "US",
    "4": "MR", "4.1": "MR", "4.2": "MR", "4.3": "MR", "4.4": "MR", "5": "NM", "20": "NM",
    "9.1.1": "ECG", "9.1.2": "ECG", "9.2.1": "HD", "9.3.1": "EPS", "9.4.1": "AU", "9.7.1": "EEG", "9.7.2": "EMG",
    "11.1": "PR", "11.2": "PR", "11.3": "PR", "11.4": "PR", "11.5": "PR", "11.8": "PR",
    "12.1": "XA", "12.1.1": "XA", "12.2": "RF", "12.2.1": "RF", "12.3": "XA", "13.1.1": "XA", "13.1.3": "MG",
    "14.1": "IVOCT", "14.2": "IVOCT", "66.1": "REG", "66.3": "REG", "66.4": "SEG", "66.5": "SEG", "67": "RWV",
    "77.1.1": "ES", "77.1.1.1": "ES", "77.1.2": "GM", "77.1.2.1": "GM", "77.1.3": "SM", "77.1.4": "XC",
    "77.1.4.1": "XC", "77.1.5.1": "OP", "77.1.5.2": "OP", "77.1.5.4": "OPT", "77.1.6": "SM",
    "88.11": "SR", "88.22": "SR", "88.33": "SR", "88.34": "SR", "88.35": "SR", "88.40": "SR", "88.50": "SR",
    "88.59": "KO", "88.65": "SR", "88.67": "SR", "88.68": "SR", "104.1": "DOC", "104.2": "DOC", "104.3": "M3D",
    "128": "PT", "128.1": "PT", "130": "PT", "481.1": "RTIMAGE", "481.2": "RTDOSE", "481.3": "RTSTRUCT",
    "481.4": "RTRECORD", "481.5": "RTPLAN", "481.6": "RTRECORD", "481.7": "RTRECORD", "481.8": "RTPLAN",
}


class Origin(StrEnum):
    """Where a modality code comes from."""

    DEVICE = "device"  #: as the device said
    REPLACED = "replaced"  #: the device said a code that DICOM does not define any more, or never did
    SOP_CLASS = "sop-class"  #: the device said nothing usable
    UNKNOWN = "unknown"  #: nothing said anything: OT


@dataclass(frozen=True, slots=True)
class Modality:
    """A DCM code and where it comes from."""

    code: str
    origin: Origin


def find_modality(modality: str, sop_class_uid: str) -> Modality:
    """Return the code for what a data set says in Modality (0008,0060) and SOP Class UID; total, never fails."""
    said = modality.strip(" \0").upper()
    if said in ACQUISITION or said in DERIVED:
        return Modality(said, Origin.DEVICE)
    if said in REPLACED:
        return Modality(REPLACED[said], Origin.REPLACED)
    implied = find_sop_class_modality(sop_class_uid)
    return Modality(implied, Origin.SOP_CLASS) if implied else Modality("OT", Origin.UNKNOWN)


def find_sop_class_modality(sop_class_uid: str) -> str:
    """Return the modality that a storage SOP class implies, "" when it implies none (secondary capture, private)."""
    if not sop_class_uid.startswith(_STORAGE):
        return ""
    return _OF_SOP_CLASS.get(sop_class_uid.removeprefix(_STORAGE), "")


def order_codes(codes: list[str]) -> list[str]:
    """Return the distinct `codes`, acquisition first, otherwise in the order given. Source: FHIR R4 modality."""
    distinct = list(dict.fromkeys(codes))
    return [code for code in distinct if code not in DERIVED] + [code for code in distinct if code in DERIVED]
