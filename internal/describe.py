"""Settled studies -> headers as DICOM JSON: parses every header in full, once, in a limited process of low priority.

Layer 4, run by the deliver role beside everything else. Nothing waits for it: a study is registered and delivered from
the index fields alone, whatever a full parser thinks of its files. Changes when metadata are built from something else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from internal import claims, events, series_metadata
from internal.errors import SHORTAGES, BytesDamaged, BytesMissing, NotDicom, StorageFailed, StorageFull, Transient
from internal.parser import Parser
from internal.ports import Clock
from internal.rows import node_of
from internal.series_metadata import Body, Source, Undescribed
from internal.spool import Spool
from internal.store import Store, Tx, storable

log = logging.getLogger("router.describe")

_REASONS_SHOWN = 5
_REST_S = 2.0
#: A study that has just settled is about to be sent.
_CALM_MS = 5_000
#: While studies are being sent, only what has waited for this long is begun.
_PATIENCE_MS = 600_000
#: If one is sent while another is described, it rests this many times as long as it works.
_REST_SHARE = 4
_REST_MAX_S = 5.0
_LOOK_S = 1.0
_FAULT_REST_S = 30.0
_PASSING = (Transient, StorageFull, StorageFailed, OSError)


class Describer:
    """Builds `series_metadata`; one per spool, in the deliver role only."""

    def __init__(self, store: Store, spool: Spool, clock: Clock, parser: Parser, stop: threading.Event) -> None:
        self._store = store
        self._spool = spool
        self._clock = clock
        self._parser = parser
        self._stop = stop
        self._looked_s = 0.0
        self._busy = False
        self.described = 0
        self.unparsed = 0

    def run(self) -> None:
        """Describe what is due until told to stop; the top of a thread."""
        while not self._stop.is_set():
            rest_s = _REST_S
            try:
                if self.run_once():
                    continue
            except _PASSING as fault:
                rest_s = _FAULT_REST_S
                if not self._stop.is_set():
                    log.warning("Metadata cannot be built now; they are tried again",
                                extra={"fields": {"why": str(fault)}})
            except Exception:  # the thread's top: metadata can wait, deliveries go on
                rest_s = _FAULT_REST_S
                log.exception("Metadata could not be built; it is tried again")
            self._stop.wait(rest_s)
        self._parser.close()

    def run_once(self) -> bool:
        """Describe the newest study that is not yet; return whether there was one, and a moment to do it.

        Rows are committed series by series; told to stop, it goes on there the next time. Raises Transient,
        StorageFailed.
        """
        settled_before = self._clock.now_ms() - (_PATIENCE_MS if self._is_busy() else _CALM_MS)
        with self._store.reading() as tx:
            study = series_metadata.undescribed(tx, self._spool.node, settled_before)
            by_series = series_metadata.sources(tx, study.study_uid) if study else {}
        if study is None:
            return False
        unparsed: dict[str, str] = {}
        for series_uid, sources in by_series.items():
            if self._stop.is_set():
                return False
            unparsed |= self._describe_series(study, series_uid, sources)
        with self._store.transaction() as tx:
            series_metadata.mark_described(tx, study)
            if unparsed:
                self._tell(tx, study.study_uid, unparsed)
        return True

    def _tell(self, tx: Tx, study_uid: str, unparsed: dict[str, str]) -> None:
        reasons = sorted(set(unparsed.values()))[:_REASONS_SHOWN]
        text = f"{len(unparsed)} images have no metadata: {'; '.join(reasons)}"
        events.add_event(tx, self._clock.now_ms(), "metadata-unparsed", text, study_uid=study_uid,
                         fields={"images": len(unparsed), "reasons": reasons})
        log.warning("Headers could not be parsed; the images are delivered all the same",
                    extra={"fields": {"study": study_uid, "images": len(unparsed), "reasons": reasons}})

    def _describe_series(self, study: Undescribed, series_uid: str, sources: Sequence[Source]) -> dict[str, str]:
        """Write the row of one series; return what could not be parsed this time, with the reason."""
        known = self._known(study.study_uid, series_uid)
        lines = known.lines if known is not None else {}
        reasons = known.unparsed if known is not None else {}
        if known is not None and {source.instance_id for source in sources} == lines.keys() | reasons.keys():
            return {}
        body, unparsed, fresh = Body(), dict[str, str](), dict[str, str]()
        for source in sources:
            line, reason = lines.get(source.instance_id), reasons.get(source.instance_id, "")
            if line is None and not reason:
                began_s = time.monotonic()
                line, reason = self._parse(source)
                self._give_way(time.monotonic() - began_s)
                if reason:
                    fresh[source.instance_id] = reason
            if line is None or not body.add(source.instance_id, line):
                unparsed[source.instance_id] = reason or "the metadata of its series are longer than 128 MB"
        packed = body.finish()
        with self._store.transaction() as tx:
            series_metadata.put_series(tx, study, series_uid, instances=body.instances, unparsed=unparsed, body=packed,
                                       now=self._clock.now_ms())
        self.described += len(body.instances)
        self.unparsed += len(fresh)
        return fresh

    def _is_busy(self) -> bool:
        """Return whether a study is being sent now."""
        self._looked_s = time.monotonic()
        with self._store.reading() as tx:
            self._busy = claims.is_any_active(tx)
        return self._busy

    def _give_way(self, worked_s: float) -> None:
        """Rest while studies are being sent."""
        if time.monotonic() - self._looked_s >= _LOOK_S:
            self._is_busy()
        if self._busy:
            self._stop.wait(min(worked_s * _REST_SHARE, _REST_MAX_S))

    def _known(self, study_uid: str, series_uid: str) -> series_metadata.SeriesMetadata | None:
        with self._store.reading() as tx:
            try:
                return series_metadata.series_metadata(tx, study_uid, series_uid)
            except (BytesDamaged, OSError):
                return None  # built anew

    def _parse(self, source: Source) -> tuple[bytes | None, str]:
        """Return the line of one instance, or why it has none."""
        if source.is_gone or node_of(source.location) != self._spool.node:
            return None, "its bytes are not on this node"
        try:
            path = self._spool.locate(source.instance_id)
            return self._parser.header_json(path, source.dataset_offset, source.transfer_syntax_uid), ""
        except BytesMissing:
            return None, "its file is missing"
        except NotDicom as refusal:
            return None, storable(str(refusal))
        except OSError as fault:
            if fault.errno in SHORTAGES:
                raise
            return None, "the disk does not give it back"  # one bad sector must not keep all others waiting
