"""`/_sandbox/...`: what tests, demos and trainers ask of the sandbox itself; no such paths exist on the platform.

Beside the platform's endpoints. Imports every table. Changes when the control interface grows.
Answers loopback peers only.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable

from sandbox.catalogue import Catalogue
from sandbox.database import Database
from sandbox.faults import FaultBook, FaultInvalid
from sandbox.fhir import FhirRefused, new_id, read_json
from sandbox.http11 import Reply, Request, build_json_reply
from sandbox.instances import InstanceTable
from sandbox.oauth2 import TokenDesk
from sandbox.options import OptionInvalid, Options, change, changeable_values
from sandbox.orders import OrderInvalid, build_base_resources, build_order, parse_order
from sandbox.privacy import MODES, PrivacyTable
from sandbox.requests_seen import RequestCounter
from sandbox.resources import ResourceTable

CONTROL_PATH = "/_sandbox"


class ControlRefused(ValueError):
    """A control request cannot be carried out; the text says why."""


class Control:
    """The control interface over all tables."""

    def __init__(self, database: Database, resources: ResourceTable, instances: InstanceTable, tokens: TokenDesk,
                 privacy: PrivacyTable, faults: FaultBook, counter: RequestCounter, catalogue: Catalogue,
                 options: Options) -> None:
        self._database = database
        self._resources = resources
        self._instances = instances
        self._tokens = tokens
        self._privacy = privacy
        self._faults = faults
        self._counter = counter
        self._catalogue = catalogue
        self._options = options
        self._routes: dict[tuple[str, str], Callable[[Request], Reply]] = {
            ("DELETE", ""): self._delete, ("GET", "/state"): self._state, ("GET", "/counts"): self._counts,
            ("POST", "/orders"): self._order, ("POST", "/faults"): self._add_faults,
            ("GET", "/faults"): self._list_faults, ("DELETE", "/faults"): self._clear_faults,
            ("POST", "/tokens/revoke"): self._revoke, ("POST", "/privacy"): self._set_privacy,
            ("POST", "/resources"): self._add_resource, ("GET", "/settings"): self._settings,
            ("POST", "/settings"): self._settings}
        self._ensure_base_resources()

    def answer(self, request: Request) -> Reply:
        """Carry out one control request: 200 or 201 with JSON, 400 with an `error` text, 403 for other machines."""
        if not is_loopback(request.peer):
            return build_json_reply(403, {"error": "the control interface answers this machine only"})
        path = request.path.removeprefix(CONTROL_PATH).rstrip("/")
        handler = self._routes.get((request.method, path))
        if handler is None:
            known = ", ".join(f"{method} {CONTROL_PATH}{rest}" for method, rest in self._routes)
            return build_json_reply(404, {"error": f"known are: {known}"})
        try:
            return handler(request)
        except (ControlRefused, FaultInvalid, OptionInvalid, OrderInvalid) as error:
            return build_json_reply(400, {"error": str(error)})
        except FhirRefused:
            return build_json_reply(400, {"error": "the body must be JSON in UTF-8"})

    def _ensure_base_resources(self) -> None:
        with self._database.transaction():
            for resource, id_ in build_base_resources():
                if not self._resources.exists(str(resource["resourceType"]), id_):
                    self._resources.write(resource, id_, index_delay_s=0, is_base=True)

    def _state(self, _request: Request) -> Reply:
        # Bodies are JSON already; parsing them again would make a large state slow.
        resources = ",".join(f"{json.dumps(type_name)}:[{','.join(bodies)}]"
                             for type_name, bodies in self._resources.bodies_by_type().items())
        rest = {"created": self._resources.created(), "instances": self._instances.listing(),
                "requests": self._counter.totals()}
        text = f'{{"resources":{{{resources}}},{json.dumps(rest)[1:]}'
        return Reply(200, text.encode(), "application/json")

    def _counts(self, _request: Request) -> Reply:
        count, size = self._instances.totals()
        return build_json_reply(200, {"resources": self._resources.counts(), "instances": count, "bytes": size,
                                      "requests": self._counter.totals()})

    def _delete(self, _request: Request) -> Reply:
        with self._database.transaction():
            self._resources.delete_all()
            self._database.query("DELETE FROM privacy")
        self._instances.delete_all()
        self._faults.clear()
        self._counter.clear()
        return build_json_reply(200, {"deleted": True})

    def _order(self, request: Request) -> Reply:
        order = parse_order(read_json(request))
        delay_s = 0.0 if order.indexed else self._options.index_delay_s
        made: dict[str, str] = {"accession_number": order.accession_number}
        keys = {"Patient": "patient_id", "Practitioner": "practitioner_id", "Encounter": "encounter_id",
                "ServiceRequest": "service_request_id"}
        with self._database.transaction():
            for resource, id_ in build_order(order):
                type_name = str(resource["resourceType"])
                made[keys[type_name]] = id_
                if type_name != "Patient" or not self._resources.exists("Patient", id_):
                    self._resources.write(resource, id_, index_delay_s=delay_s)
        return build_json_reply(201, made)

    def _add_resource(self, request: Request) -> Reply:
        given = read_json(request)
        type_name = given.get("resourceType") if isinstance(given, dict) else None
        if not isinstance(type_name, str) or type_name not in self._catalogue.types:
            raise ControlRefused("the body must be a resource of a known resourceType")
        id_ = given.get("id", new_id(type_name))
        if not isinstance(id_, str) or not 0 < len(id_) <= 64:
            raise ControlRefused("id must be a text of 1 to 64 characters")
        with self._database.transaction():
            self._resources.write(given, id_, index_delay_s=0)
        return build_json_reply(201, {"id": id_})

    def _add_faults(self, request: Request) -> Reply:
        self._faults.add(read_json(request))
        return self._list_faults(request)

    def _list_faults(self, _request: Request) -> Reply:
        return build_json_reply(200, self._faults.listing())

    def _clear_faults(self, request: Request) -> Reply:
        self._faults.clear()
        return self._list_faults(request)

    def _revoke(self, _request: Request) -> Reply:
        return build_json_reply(200, {"revoked": self._tokens.revoke_all()})

    def _set_privacy(self, request: Request) -> Reply:
        given = read_json(request)
        patient_id = given.get("patient_id") if isinstance(given, dict) else None
        if not isinstance(patient_id, str) or given.get("mode") not in MODES:
            raise ControlRefused(f"patient_id and mode ({', '.join(MODES)}) are needed")
        self._privacy.set_mode(patient_id, given["mode"])
        return build_json_reply(200, {"patient_id": patient_id, "mode": given["mode"]})

    def _settings(self, request: Request) -> Reply:
        given = read_json(request) if request.method == "POST" else {}
        if not isinstance(given, dict):
            raise ControlRefused("settings must be an object")
        for name, value in given.items():
            change(self._options, name, value)
        return build_json_reply(200, changeable_values(self._options))


def is_loopback(peer: str) -> bool:
    """True for an address of this machine's loopback interface."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
