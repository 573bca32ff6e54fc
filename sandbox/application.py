"""Which handler answers which path, and what happens before it does: counting, faults, latency, the token.

Between the server and the handlers. Imports every handler. Changes when an endpoint is added.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox.bundle import Transaction
from sandbox.catalogue import Catalogue
from sandbox.control import CONTROL_PATH, Control
from sandbox.database import Database
from sandbox.dicomweb import DICOM_PATH, DicomStore
from sandbox.faults import BODY_HEAD_BYTES, Fault, FaultBook
from sandbox.fhir import FHIR_PATH, Fhir, FhirRefused, refuse_unknown_headers
from sandbox.http11 import Reply, Request, build_json_reply, decode_segment
from sandbox.instances import InstanceTable
from sandbox.oauth2 import TokenDesk
from sandbox.options import Options
from sandbox.outcome import build_wrong_path
from sandbox.privacy import PrivacyTable
from sandbox.requests_seen import RequestCounter
from sandbox.resources import ResourceTable
from sandbox.server import ResetConnection

log = logging.getLogger("sandbox")

TOKEN_PATH = "/oauth2/v1/accesstoken"  # noqa: S105 - a path
COMPOSE_TEXT = b"# The platform serves its docker-compose.yml here; the sandbox has none.\nservices: {}\n"


@dataclass(frozen=True, slots=True)
class Route:
    """The endpoint a request is for: its name in the counters, its handler, and whether it needs a token."""

    template: str
    handler: Callable[[Request], Reply]
    needs_token: bool = True


class Application:
    """The whole platform behind one call: `application(request) -> Reply`."""

    def __init__(self, database: Database, folder: Path, options: Options, base_url: str) -> None:
        self._options = options
        self._base_url = base_url
        self._stopping = threading.Event()
        self._faults, self._counter, self._catalogue = FaultBook(), RequestCounter(), Catalogue()
        resources, privacy = ResourceTable(database), PrivacyTable(database)
        instances = InstanceTable(database, folder)
        self._tokens = TokenDesk(database, options)
        self._fhir = Fhir(database, resources, privacy, self._catalogue, options)
        self._transaction = Transaction(self._fhir, database, resources, self._catalogue)
        self._dicom = DicomStore(instances, resources, options)
        self._control = Control(database, resources, instances, self._tokens, privacy, self._faults, self._counter,
                                self._catalogue, options)

    def stop(self) -> None:
        """End every delay that is being waited for."""
        self._stopping.set()

    def __call__(self, request: Request) -> Reply:
        """Answer one request; raises ResetConnection when a fault wants the connection reset."""
        if request.path == CONTROL_PATH or request.path.startswith(CONTROL_PATH + "/"):
            return self._control.answer(request)
        began = time.monotonic()
        route = self._route(request)
        name = f"{request.method} {route.template}" if route else f"{request.method[:8]} (other path)"
        self._counter.add(name)
        status: object = "reset"
        try:
            reply = self._with_faults(request, route)
            status = reply.status
        finally:
            # The path and the query may hold a Patient ID or a NIK, the template cannot.
            log.info("%s -> %s in %.0f ms", name, status, (time.monotonic() - began) * 1000)
        reply.headers.setdefault("x-request-id", str(uuid.uuid4()))
        reply.headers.setdefault("via", "1.1 google")
        return reply

    def _with_faults(self, request: Request, route: Route | None) -> Reply:
        fault = self._faults.match(request.method, request.path, request.query,
                                   lambda: request.body.peek(BODY_HEAD_BYTES))
        delay_s = self._options.latency_ms / 1000 + (fault.delay_s if fault else 0)
        if delay_s:
            self._stopping.wait(delay_s)
        if fault is None:
            return self._platform(request, route)
        if fault.reset:
            _read_some(request, fault)
            raise ResetConnection
        reply = None if fault.store_then_reset else fault.reply()
        reply = reply or self._platform(request, route)
        if fault.store_then_reset:
            raise ResetConnection
        reply.drip_bytes_per_s = fault.drip_bytes_per_s
        return reply

    def _platform(self, request: Request, route: Route | None) -> Reply:
        if route is None:
            return build_wrong_path()
        if route.needs_token and (refusal := self._tokens.refusal(request)):
            return refusal
        try:
            return route.handler(request)
        except FhirRefused as refused:
            return refused.reply

    def _route(self, request: Request) -> Route | None:
        path, method = request.path.rstrip("/"), request.method
        if path == TOKEN_PATH:
            return Route(TOKEN_PATH, self._tokens.answer, needs_token=False) if method == "POST" else None
        if path == "/dicom-router" and method == "GET":
            return Route(path, lambda _: Reply(200, COMPOSE_TEXT, "text/yaml"))
        if path == FHIR_PATH or path.startswith(FHIR_PATH + "/"):
            return self._fhir_route(method, path[len(FHIR_PATH):].split("/")[1:])
        if path == DICOM_PATH or path.startswith(DICOM_PATH + "/"):
            return self._dicom_route(method, path[len(DICOM_PATH):].split("/")[1:])
        return None

    def _fhir_route(self, method: str, segments: list[str]) -> Route | None:
        match (method, *segments):
            case ("POST",):
                return Route(FHIR_PATH, self._of_json(lambda r: self._transaction.answer(r, self._base_url)))
            case ("GET", "metadata"):
                return Route(f"{FHIR_PATH}/metadata", lambda _: self._metadata())
            case ("GET", "dcm_cfg"):
                return Route(f"{FHIR_PATH}/dcm_cfg",
                             lambda _: build_json_reply(200, {"SATUSEHAT_CLIENT_ENABLE": False}))
        if not segments or segments[0] not in self._catalogue.types or len(segments) > 2:
            return None
        type_name, id_ = segments[0], decode_segment(segments[-1])
        verbs: dict[tuple[str, int], Callable[[Request], Reply]] = {
            ("POST", 1): self._of_json(lambda r: self._fhir.create(r, type_name)),
            ("GET", 1): lambda r: self._fhir.search(r, type_name, self._base_url),
            ("GET", 2): lambda _: self._fhir.read(type_name, id_),
            ("PUT", 2): self._of_json(lambda r: self._fhir.update(r, type_name, id_)),
            ("PATCH", 2): self._of_json(lambda r: self._fhir.patch(r, type_name, id_))}
        verb = verbs.get((method, len(segments)))
        template = f"{FHIR_PATH}/{type_name}" + ("/{id}" if len(segments) == 2 else "")
        return Route(template, verb) if verb else None

    def _of_json(self, handler: Callable[[Request], Reply]) -> Callable[[Request], Reply]:
        def checked(request: Request) -> Reply:
            refuse_unknown_headers(request)
            return handler(request)

        return checked

    def _metadata(self) -> Reply:
        interactions = [{"code": code} for code in ("create", "read", "update", "patch", "search-type")]
        return build_json_reply(200, {
            "fhirVersion": "4.0.1", "format": ["json"], "kind": "instance", "resourceType": "CapabilityStatement",
            "rest": [{"mode": "server", "resource": [{"type": name, "interaction": interactions}
                                                     for name in sorted(self._catalogue.types)]}],
            "status": "active"})

    def _dicom_route(self, method: str, segments: list[str]) -> Route | None:
        if method == "POST" and len(segments) <= 1:
            study_uid = segments[0] if segments else None
            return Route(DICOM_PATH + ("/{id}" if segments else ""),
                         lambda r: self._dicom.store(r, study_uid, self._base_url))
        match segments:
            case [study_uid, "series", series_uid, "instances", sop_uid] if method in ("GET", "HEAD"):
                return Route(f"{DICOM_PATH}/{{id}}/series/{{id}}/instances/{{id}}",
                             lambda r: self._dicom.retrieve(r, study_uid, series_uid, sop_uid))
        return None


def _read_some(request: Request, fault: Fault) -> None:
    left = fault.after_bytes
    while left > 0 and not request.body.finished:
        for piece in request.body.chunks():
            left -= len(piece)
            if left <= 0:
                return
