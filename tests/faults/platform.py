"""The platform misbehaves for one study (group D): rows that are run together."""

from __future__ import annotations

from typing import Any

from tests.faults.stand import Fault, Stand
from tests.system.images import Study

ORDER = {"method": "GET", "path": "/fhir-r4/v1/ServiceRequest"}
CREATE = {"method": "POST", "path": "/fhir-r4/v1/ImagingStudy"}
PUSH = {"method": "POST", "path": "/dicom/v1/dicomWeb/studies"}
WEBPAGE = {"status": 200, "headers": {"Content-Type": "text/html"}, "body": "<html>ok</html>"}
SUPPRESSED = {"resourceType": "OperationOutcome", "issue": [{
    "severity": "information", "code": "suppressed", "details": {"text": "not shown due to consent"}}]}
RULE = {"resourceType": "OperationOutcome", "issue": [{
    "severity": "error", "code": "value", "details": {
        "text": "Reference is mandatory : ImagingStudy.basedOn (RuleNumber: 10154)"}}]}


def order_comes(stand: Stand, study: Study) -> None:
    """The order reaches the platform after its images."""
    stand.order(study.accession_number)


def only_the_refused_were_sent_again(stand: Stand, study: Study) -> str:
    """Return what is wrong unless each instance has arrived once."""
    uids = {image.sop_uid for image in study.images}
    often = [one["times_received"] for one in stand.rig.state()["instances"] if one["sop_uid"] in uids]
    return "" if often == [1] * len(uids) else f"received {often} times"


def neighbours_are_away(stand: Stand, study: Study) -> str:
    """Return what is wrong unless the other destination of this delivered study waits for its share."""
    states = {str(row.state) for row in stand.rows() if row.study_uid == study.study_uid and row.lane == "archive"}
    return "" if states and states <= {"queued", "deferred", "active"} else f"the other destination is {states}"


def is_told_of(stand: Stand, study: Study) -> str:
    """Return what is wrong unless the hospital's notice of this study is kept while nobody listens."""
    states = {str(row.state) for row in stand.rows() if row.study_uid == study.study_uid and row.lane == "webhook"}
    return "" if states and "done" not in states else f"the notice is {states}"


def _push(id_: str, text: str, count: int = 1, **fault: Any) -> Fault:
    return Fault(id_, text, platform=({**PUSH, "count": count, **fault},))


FAULTS = [
    Fault("D3", "token dies in the middle of a study (401 at the second push)",
          platform=({**PUSH, "nth": 2, "status": 401},), images=4),
    Fault("D6", "400 OperationOutcome with a rule number; a person has it tried again",
          platform=({**CREATE, "count": 1, "status": 400, "body": RULE},), first=("held", "rule-10154"),
          heal=Stand.retry),
    Fault("D9", "stored, reply lost, then 409 already exists", images=1, platform=(
        {**PUSH, "nth": 1, "store_then_reset": True},
        {**PUSH, "nth": 2, "status": 409, "body": "Instance already exists"})),
    Fault("D11", "413 for an image; a person has it tried again", platform=({**PUSH, "nth": 1, "status": 413},),
          first=("held", "partly-delivered"), heal=Stand.retry),
    Fault("D12", "422 for an image; a person has it tried again", platform=({**PUSH, "nth": 1, "status": 422},),
          first=("held", "partly-delivered"), heal=Stand.retry),
    _push("D13a", "429, Retry-After in seconds", status=429, headers={"Retry-After": "1"}),
    _push("D13b", "429, Retry-After as a date", status=429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    _push("D13c", "429, Retry-After -1", status=429, headers={"Retry-After": "-1"}),
    _push("D14a", "500 twice", 2, status=500),
    _push("D14b", "502 twice", 2, status=502),
    _push("D14c", "503 twice", 2, status=503),
    _push("D14d", "504 twice", 2, status=504),
    Fault("D14e", "503 for the order twice", platform=({**ORDER, "count": 2, "status": 503, "body": "no upstream"},)),
    Fault("D15", "no answer at all to the search", platform=({**ORDER, "count": 1, "delay_s": 4},)),
    Fault("D19", "the reply drips, 10 B/s", platform=({**ORDER, "count": 1, "drip_bytes_per_s": 10},)),
    _push("D21a", "reset in the middle of an upload", reset=True, after_bytes=3000),
    _push("D21b", "reset at the beginning of an upload", 2, reset=True, after_bytes=0),
    Fault("D22", "ImagingStudy stored, reply lost, index lags",
          platform=({**CREATE, "count": 1, "store_then_reset": True},)),
    _push("D23", "instance stored, reply lost", store_then_reset=True),
    _push("D24a", "push answered with garbage JSON and 200", status=200, body="{"),
    _push("D24b", "push answered with a web page and 200", **WEBPAGE),
    _push("D24c", "push answered with nothing and 200", status=200, body=""),
    Fault("D24d", "POST of the ImagingStudy answered with a web page", platform=({**CREATE, "count": 1, **WEBPAGE},)),
    _push("D24e", "push answered with a FHIR resource and 200", status=200,
          body={"resourceType": "Patient", "id": "x"}),
    Fault("D25", "the order is withheld (suppressed) twice",
          platform=({**ORDER, "count": 2, "status": 200, "body": SUPPRESSED},)),
    Fault("D29", "the order comes after the images", order=None, first=("waiting", "no-order"), heal=order_comes),
    Fault("D30", "two orders for one accession", send=lambda stand, study: (
        stand.order(study.accession_number), stand.send_all(study))[1], first=("held", "several-orders")),
    Fault("D31", "the order is another patient's", order=None, send=lambda stand, study: (
        stand.order_of_somebody(study.accession_number, "NY. RATNA DEWI"), stand.send_all(study))[1],
        first=("held", "patient-mismatch")),
    Fault("D32", "the order was revoked", order={"status": "revoked"}, first=("held", "order-not-usable")),
    Fault("D34", "3 of 8 images refused, only these are sent again", platform=({**PUSH, "count": 3, "status": 422},),
          images=8, first=("held", "partly-delivered"), heal=Stand.retry, check=only_the_refused_were_sent_again),
    Fault("D37", "the hospital's webhook is down", check=is_told_of),
    Fault("D38", "the second destination is down", check=neighbours_are_away),
]
