"""A whole header as DICOM JSON: what metadata services answer with. Pixel data and large values are never read.

Layer 1, over outline; the only module of the router's own domain that lets pydicom parse a peer's bytes, and only ever
inside the limited process of `parse_child`. Changes when DICOM JSON does. Source: PS3.18 F.2.
"""

from __future__ import annotations

import io
import json
import math
import struct
from typing import Any, BinaryIO, Final

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.filereader import read_dataset

from internal.outline import outline

#: Longer binary values are not written inline but named, to be fetched from the image itself.
INLINE_BYTES: Final = 1024
#: One element that is not what its VR says is left out; the rest of the header is as good as before.
_UNFIT: Final = (ValueError, TypeError, OverflowError, AttributeError, LookupError, NotImplementedError, struct.error,
                 BytesLengthException)


def header_json(file: BinaryIO, transfer_syntax_uid: str) -> bytes:
    """Return the header of the data set at the file's position as one line of DICOM JSON (ASCII).

    A large value has the BulkDataURI ``bulkdata/TAG``, nested ones ``bulkdata/SEQUENCE/ITEM/TAG``, items counted from
    0. Raises NotDicom, or whatever pydicom raises.
    """
    config.settings.reading_validation_mode = config.IGNORE
    header = outline(file, transfer_syntax_uid)
    data_set = read_dataset(io.BytesIO(header.data), header.implicit, not header.big)
    elements = _elements(data_set, "bulkdata/")
    for tag, vr in header.bulk:
        elements[f"{tag:08X}"] = {"vr": vr or "UN", "BulkDataURI": f"bulkdata/{tag:08X}"}
    return json.dumps(dict(sorted(elements.items())), separators=(",", ":")).encode("ascii")


def _elements(data_set: Dataset, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag in list(data_set.keys()):
        if tag.element == 0 or tag.group in (0x0000, 0x0002):  # group lengths have no place in DICOM JSON
            continue
        name = f"{int(tag):08X}"
        try:
            element = data_set[tag]
            if element.VR == "SQ":
                found[name] = _sequence(element.value, f"{path}{name}/")
            else:
                found[name] = _finite(element.to_json_dict(lambda _, name=name: path + name, INLINE_BYTES))
        except _UNFIT:
            continue
    return found


def _sequence(items: Any, path: str) -> dict[str, Any]:
    made: dict[str, Any] = {"vr": "SQ"}
    if items:
        made["Value"] = [_elements(item, f"{path}{number}/") for number, item in enumerate(items)]
    return made


def _finite(element: dict[str, Any]) -> dict[str, Any]:
    """Write what JSON has no number for as text, as PS3.18 F.2.3.1 allows."""
    values = element.get("Value")
    if values and any(isinstance(value, float) and not math.isfinite(value) for value in values):
        element["Value"] = [str(v) if isinstance(v, float) and not math.isfinite(v) else v for v in values]
    return element
