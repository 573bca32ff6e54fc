"""A PACS beside the platform that answers as it is told, and keeps what it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage

from tests.system.images import Study
from tests.system.rig import free_port


class Pacs:
    """A node under AE title PACS. `statuses`: what it says about an image, by SOP Instance UID; else `status`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 0
        self.statuses: dict[str, int] = {}
        self.kept: dict[str, list[pydicom.Dataset]] = {}
        self.asked = 0
        self._server: Any = None
        self.start([ExplicitVRLittleEndian])

    def start(self, syntaxes: Sequence[str]) -> None:
        """Take images in these transfer syntaxes alone from now on, under the same port; ends what is open."""
        self.close()
        entity = AE(ae_title="PACS")
        entity.add_supported_context(CTImageStorage, list(syntaxes))
        self._server = entity.start_server(("127.0.0.1", self.port), block=False,
                                           evt_handlers=[(evt.EVT_C_STORE, self._store)])

    def close(self) -> None:
        """Shut the port and end every association."""
        if self._server is not None:
            self._server.shutdown()

    def _store(self, event: Any) -> int:
        self.asked += 1
        uid = str(event.request.AffectedSOPInstanceUID)
        status = self.statuses.get(uid, self.status)
        if status == 0 or 0xB000 <= status <= 0xBFFF:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            self.kept.setdefault(uid, []).append(dataset)
        return status

    def find_wrongs(self, study: Study) -> list[str]:
        """Return what is not as it was sent: an image that is missing, came twice, or shows other pixels."""
        wrongs = []
        for image in study.images:
            kept = self.kept.get(image.sop_uid, [])
            if len(kept) != 1:
                wrongs.append(f"the PACS has {image.sop_uid} {len(kept)} times")
            elif _pixels(kept[0]) != _pixels(pydicom.dcmread(image.path)):
                wrongs.append(f"the PACS has {image.sop_uid} with other pixels")
        return wrongs


def _pixels(dataset: pydicom.Dataset) -> bytes:
    """Return the pixels decoded where we can decode them, else as they are encoded."""
    if dataset.file_meta.TransferSyntaxUID == pydicom.uid.RLELossless:
        dataset.decompress()
    return bytes(dataset.PixelData)
