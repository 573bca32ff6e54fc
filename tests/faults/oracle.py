"""The one oracle: what senders were told, against what the sandbox holds and what the router says about it.

Source: the invariants I1 to I5 of our catalogue of faults. Pure; every system test that delivers ends with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.system.images import Image


@dataclass(frozen=True)
class Told:
    """What people and machines were told.

    `acknowledged`: images answered with 0x0000. `sent`: every SOP Instance UID that a sender ever sent. `done`: studies
    that the router calls delivered, None: all of them. `kept`: the data sets (SHA-256) that the router still holds, by
    SOP Instance UID.
    """

    acknowledged: Sequence[Image]
    sent: Collection[str]
    done: Collection[str] | None = None
    kept: Mapping[str, Collection[str]] = field(default_factory=dict)


def find_wrongs(state: Mapping[str, Any], told: Told) -> list[str]:
    """Return in words what is not as it must be, [] if everything is; `state` is the sandbox's /_sandbox/state."""
    held = {item["sop_uid"]: item for item in state["instances"]}
    wrongs = []
    for image in told.acknowledged:
        arrived = held.get(image.sop_uid, {}).get("dataset_sha256") == image.dataset_sha256
        kept = image.dataset_sha256 in told.kept.get(image.sop_uid, ())
        if not arrived and not kept:
            wrongs.append(f"acknowledged and lost: {image.sop_uid}")
        if not arrived and (told.done is None or image.study_uid in told.done):
            wrongs.append(f"called delivered without being there byte for byte: {image.sop_uid}")
    wrongs += [f"nobody sent {uid}" for uid in sorted(set(held) - set(told.sent))]
    wrongs += [f"sent with two contents: {uid}" for uid, item in held.items() if item["times_conflicting"]]
    registered = [_study_of(resource) for resource in state["resources"].get("ImagingStudy", [])]
    wrongs += [f"ImagingStudy made twice for {uid}" for uid in sorted(set(registered)) if registered.count(uid) > 1]
    return wrongs


def _study_of(resource: Mapping[str, Any]) -> str:
    for identifier in resource["identifier"]:
        if identifier["system"] == "urn:dicom:uid":
            return str(identifier["value"]).removeprefix("urn:oid:")
    return ""
