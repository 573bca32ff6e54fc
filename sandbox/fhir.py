"""The FHIR verbs: create, read, search, update, patch.

Between the dispatcher and `resources`. Imports the validation, `resources`, `privacy`, `outcome`. Changes when a
verb of the platform changes. Source: fact sheet satusehat.md sections 2.1 to 2.6.
"""

from __future__ import annotations

import json
import secrets
import urllib.parse
import uuid
from typing import Any

from sandbox.catalogue import Catalogue, values_at
from sandbox.database import Database, format_last_modified, format_version_id
from sandbox.http11 import HttpRefused, Reply, Request, parse_pairs
from sandbox.options import ORGANIZATION_ID, Options
from sandbox.outcome import Issue, build_forbidden, build_one, build_outcome, build_suppressed, rule_text
from sandbox.patch import PatchRefused, apply_patch
from sandbox.privacy import PrivacyTable, mask_patient
from sandbox.resources import CREATOR_SYSTEM, ResourceTable, Stored
from sandbox.rules import Exists, Validator, ends_after
from sandbox.search import Query, parse_query

BODY_LIMIT_BYTES = 10 * 1024 * 1024
FHIR_PATH = "/fhir-r4/v1"
# The platform leaks the address of the store behind it; clients must not follow it.
STORE_URL = ("https://healthcare.googleapis.com/v1/projects/satusehat-sandbox/locations/asia-southeast2"
             "/datasets/sandbox/fhirStores/fhir-v4-sandbox/fhir")


class FhirRefused(Exception):
    """A verb ends here; `reply` is what the client gets, and nothing was stored."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def read_json(request: Request) -> Any:
    """The request body as JSON; raises FhirRefused (400, rules 20005 and 20006) or HttpRefused 413."""
    data = request.body.read_all(BODY_LIMIT_BYTES)
    try:
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise FhirRefused(build_one("exception", "Failed to read request payload", 20005)) from error
    except (ValueError, RecursionError) as error:
        raise FhirRefused(build_one("exception", "Invalid JSON Payload Format", 20006)) from error
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def parse_resource(value: object, type_name: str) -> dict[str, Any]:
    """`value` as a resource of this type; raises FhirRefused (rule 20008)."""
    if not isinstance(value, dict) or value.get("resourceType") != type_name:
        text = rule_text("Failed to unmarshal request payload", 20008)
        raise FhirRefused(build_outcome([Issue("structure", text, f"{type_name}.resourceType")]))
    return {key: item for key, item in value.items() if key != "meta"} if value.get("meta") == {} else value


def build_stored_reply(stored: Stored, status: int, resource: dict[str, Any] | None = None) -> Reply:
    """The answer to a write or read. Source: fact sheet section 2.1."""
    body = stored.body if resource is None else json.dumps(
        resource, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    version_id = format_version_id(stored.version_ns)
    return Reply(status, body.encode(), "application/json", {
        "etag": f'W/"{version_id}"', "last-modified": format_last_modified(stored.version_ns),
        "location": f"{STORE_URL}/{stored.type_name}/{stored.id}/_history/{version_id}"})


class Fhir:
    """The verbs over one resource table."""

    def __init__(self, database: Database, resources: ResourceTable, privacy: PrivacyTable, catalogue: Catalogue,
                 options: Options) -> None:
        self._database = database
        self._resources = resources
        self._privacy = privacy
        self._catalogue = catalogue
        self._options = options
        self._validator = Validator(catalogue, options)

    def validate(self, resource: dict[str, Any], exists: Exists | None = None) -> list[Issue]:
        """All problems the platform would name; none means that it may be stored."""
        return self._validator.check(resource, str(resource["resourceType"]), exists or self._resources.exists)

    def create(self, request: Request, type_name: str) -> Reply:
        """POST: 201 with the stored resource, 400 with all problems; conditional where If-None-Exist is honoured."""
        resource = parse_resource(read_json(request), type_name)
        issues = self.writing_issues(resource) or self.validate(resource)
        if issues:
            return build_outcome(issues)
        with self._database.transaction():
            condition = request.headers.get("if-none-exist", "")
            found = self._conditional(type_name, condition) if condition else []
            if len(found) > 1:
                return build_one("value", "If-None-Exist matches several resources", status=412)
            if found:
                return build_stored_reply(found[0], 200)
            return build_stored_reply(self.store_new(resource), 201)

    def _conditional(self, type_name: str, condition: str) -> list[Stored]:
        honoured = self._options.if_none_exist
        if honoured == "none" or (honoured == "encounter" and type_name != "Encounter"):
            return []
        query = parse_query(parse_pairs(condition.partition("?")[2] or condition))
        return self._resources.find(type_name, query)[1] if query.criteria else []

    def writing_issues(self, resource: dict[str, Any]) -> list[Issue]:
        """Why this resource may not be written at all, whatever its content."""
        type_name = str(resource["resourceType"])
        if type_name in self._catalogue.read_only_types:
            return [Issue("forbidden", rule_text(
                f"Resource {type_name} is not allowed for current access class", 20004))]
        if self._privacy.mode_of(resource) == "forbidden":
            raise FhirRefused(build_forbidden())
        return []

    def store_new(self, resource: dict[str, Any], id_: str | None = None, *, indexed: bool = False) -> Stored:
        """Store a checked resource under a new id, inside a transaction; raises FhirRefused for a duplicate."""
        self.refuse_duplicate(resource, None)
        type_name = str(resource["resourceType"])
        delay_s = 0.0 if indexed else self._options.index_delay_s
        return self._resources.write(self._with_additions(resource), id_ or new_id(type_name), index_delay_s=delay_s)

    def refuse_duplicate(self, resource: dict[str, Any], own_id: str | None) -> None:
        """Raise FhirRefused (rule 20002) when another resource has one of these identifiers."""
        type_name = str(resource["resourceType"])
        if self._options.allow_duplicates or type_name not in self._catalogue.unique_types:
            return
        if self._resources.duplicate_of(resource, own_id):
            raise FhirRefused(build_one("duplicate", f"Found duplicate resource: {type_name}", 20002))

    def _with_additions(self, resource: dict[str, Any]) -> dict[str, Any]:
        """What the server adds by itself. Source: fact sheet section 2.1."""
        type_name = resource["resourceType"]
        identifiers = resource.get("identifier", [])
        if type_name == "Observation" and not identifiers:
            return {**resource, "identifier": []}
        systems = [one.get("system") for _, one in values_at(resource, "identifier") if isinstance(one, dict)]
        if (type_name not in self._catalogue.creator_types or CREATOR_SYSTEM in systems
                or not isinstance(identifiers, list)):
            return resource
        return {**resource, "identifier": [*identifiers, {"system": CREATOR_SYSTEM, "value": ORGANIZATION_ID}]}

    def read(self, type_name: str, id_: str) -> Reply:
        """GET by id: 200, or 404 with rule 20007; Patients are masked without their name."""
        stored = self._resources.read(type_name, id_)
        if stored is None:
            return build_one("not-found", f"Resource not found {type_name}/{id_}"[:200], 20007, status=404)
        resource = stored.resource()
        if blocked := self._blocked([resource]):
            return blocked
        if type_name == "Patient":
            return build_stored_reply(stored, 200, mask_patient(resource, with_name=False))
        return build_stored_reply(stored, 200)

    def _blocked(self, resources: list[dict[str, Any]]) -> Reply | None:
        modes = {self._privacy.mode_of(resource) for resource in resources}
        if "forbidden" in modes:
            return build_forbidden()
        return build_suppressed() if "suppressed" in modes else None

    def search(self, request: Request, type_name: str, base_url: str) -> Reply:
        """GET with parameters: a searchset Bundle, `entry` present even when empty. Source: section 2.2."""
        query = parse_query(request.parameters())
        total, page = self._resources.find(type_name, query)
        resources = [stored.resource() for stored in page]
        if blocked := self._blocked(resources):
            return blocked
        if type_name == "Patient":
            resources = [mask_patient(resource, with_name=True) for resource in resources]
        url = f"{base_url}{FHIR_PATH}/{type_name}"
        bundle = {"resourceType": "Bundle", "type": "searchset", "total": total,
                  "entry": [{"fullUrl": f"{url}/{resource['id']}", "resource": resource} for resource in resources],
                  "link": _links(f"{url}/", query, total)}
        text = json.dumps(bundle, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return Reply(200, text.encode(), "application/json")

    def update(self, request: Request, type_name: str, id_: str) -> Reply:
        """PUT: replaces the whole resource, 200; the id in the body must be the one in the path."""
        resource = parse_resource(read_json(request), type_name)
        if resource.get("id") != id_:
            raise FhirRefused(build_outcome([Issue(
                "structure", "resource_mismatch", type_name, "resource id mismatch, id of specified resource: "
                f"{id_[:64]}, id from payload: {str(resource.get('id'))[:64]}", of_store=True)]))
        return self._replace(resource, type_name, id_)

    def patch(self, request: Request, type_name: str, id_: str) -> Reply:
        """PATCH: a JSON Patch of add and replace operations, 200."""
        operations = read_json(request)
        stored = self._resources.read(type_name, id_)
        if stored is None:
            return build_one("not-found", f"Resource not found {type_name}/{id_}"[:200], 20007, status=404)
        try:
            patched = apply_patch(stored.resource(), operations)
        except PatchRefused as refused:
            return build_outcome([Issue("structure", "invalid_patch", type_name, str(refused), of_store=True)])
        return self._replace(patched, type_name, id_)

    def _replace(self, resource: dict[str, Any], type_name: str, id_: str) -> Reply:
        issues = self.writing_issues(resource) or self.validate(resource)
        if type_name in self._catalogue.not_updatable_types:
            issues = [Issue("forbidden", rule_text(f"Organization not allowed to edit {type_name}", 20016))]
        if issues:
            return build_outcome(issues)
        with self._database.transaction():
            return build_stored_reply(self.store_again(resource, id_), 200)

    def store_again(self, resource: dict[str, Any], id_: str) -> Stored:
        """Replace a stored resource by a checked one, inside a transaction; raises FhirRefused."""
        type_name = str(resource["resourceType"])
        before = self._resources.read(type_name, id_)
        if before is None:
            raise FhirRefused(build_one("not-found", f"Resource not found {type_name}/{id_}"[:200], 20007, 404))
        self.refuse_duplicate(resource, id_)
        if type_name == "Encounter" and not ends_after(before.resource(), resource):
            raise FhirRefused(build_outcome([Issue("structure", "fhirpath-constraint-violation-Encounter.period",
                                                   "Encounter.period", of_store=True)]))
        return self._resources.write(self._with_additions(resource), id_, index_delay_s=self._options.index_delay_s)


def new_id(type_name: str) -> str:
    """A fresh id of the platform's form: P and 11 digits, 11 digits, or a UUID. Source: fact sheet section 2.1."""
    if type_name == "Patient":
        return f"P0{secrets.randbelow(10**10):010d}"
    if type_name == "Practitioner":
        return f"1{secrets.randbelow(10**10):010d}"
    return str(uuid.uuid4())


def _links(url: str, query: Query, total: int) -> list[dict[str, str]]:
    plain = [pair for pair in query.used if pair[0] != "_page_token"]
    first = f"{url}?{urllib.parse.urlencode(plain)}"
    links = [{"relation": "search", "url": first}, {"relation": "first", "url": first},
             {"relation": "self", "url": f"{url}?{urllib.parse.urlencode(query.used)}"}]
    following = query.offset + query.count
    if query.count and following < total:
        links.append({"relation": "next",
                      "url": f"{url}?{urllib.parse.urlencode([*plain, ('_page_token', str(following))])}"})
    return links


def refuse_unknown_headers(request: Request) -> None:
    """Raise HttpRefused 415 unless the body claims to be JSON. Source: fact sheet sections 2.1 and 2.4."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/fhir+json", "application/json-patch+json"):
        raise HttpRefused(415, "Content-Type must be application/json or application/fhir+json")
