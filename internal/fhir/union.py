"""What the platform's ImagingStudy lists, united with what we are about to say: a PUT never shrinks it.

Called by the ImagingStudy builder alone. Layer 1, imports nothing of ours.
Changes when it has to be decided anew whose word counts: ours or what somebody wrote on the platform.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from internal.fhir import dates

Resource = dict[str, Any]

#: What is said where nothing is known; it never replaces something that somebody knew.
NO_DESCRIPTION = "No Description"
UNKNOWN_MODALITY = "OT"

MAX_DEPTH = 24
MAX_UNSIGNED = 2_147_483_647
_SERVER_META = frozenset({"versionId", "lastUpdated"})


def prune(value: Any, depth: int = 0) -> Any:
    """Return `value` without nulls, empty texts, empty lists and empty objects; None when nothing is left of it.

    Branches deeper than MAX_DEPTH are dropped. Source: satusehat facts 2.6 (empty arrays are refused).
    """
    if isinstance(value, Mapping):
        if depth > MAX_DEPTH:
            return None
        pruned = {str(key): prune(item, depth + 1) for key, item in value.items()}
        return {key: item for key, item in pruned.items() if item is not None} or None
    if isinstance(value, list | tuple):
        if depth > MAX_DEPTH:
            return None
        kept = [item for item in (prune(entry, depth + 1) for entry in value) if item is not None]
        return kept or None
    return None if value == "" else value


def objects(value: Any) -> list[Resource]:
    """Return the objects of a JSON array, an empty list for anything else."""
    return [dict(entry) for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def comparable(resource: Mapping[str, Any]) -> Resource:
    """Return `resource` as we would send it back unchanged: pruned, without what only the server writes in meta."""
    kept = dict(resource)
    meta = kept.pop("meta", None)
    if isinstance(meta, Mapping):
        kept["meta"] = {key: value for key, value in meta.items() if key not in _SERVER_META}
    return prune(kept) or {}


def unite(ours: Resource, existing: Mapping[str, Any]) -> Resource:
    """Return `ours` and everything that `existing` holds beyond it; counts and modalities are the caller's to redo.

    Identifiers, orders, series and instances are united. A description, start, number or title that stands on the
    platform stays unless it is not valid or only the placeholder for "unknown": a person may have put it there.
    """
    theirs = comparable(existing)
    merged = {**theirs, **ours}
    merged["identifier"] = _unite_list(ours.get("identifier"), theirs.get("identifier"), ("system", "value"))
    merged["basedOn"] = _unite_list(ours.get("basedOn"), theirs.get("basedOn"), ("reference",))
    _keep(merged, theirs, "description", _is_known_text)
    _keep_valid(merged, ours, theirs, "started", dates.is_sendable)
    if theirs.get("status") in ("registered", "cancelled", "entered-in-error"):
        merged["status"] = "available" if theirs["status"] == "registered" else theirs["status"]
    merged["series"] = _unite_series(objects(ours.get("series")), objects(theirs.get("series")))
    return merged


def _unite_list(ours: Any, theirs: Any, keys: tuple[str, ...]) -> list[Resource]:
    result = objects(ours)
    seen = {tuple(str(entry.get(key)) for key in keys) for entry in result}
    for entry in objects(theirs):
        identity = tuple(str(entry.get(key)) for key in keys)
        if identity not in seen:
            seen.add(identity)
            result.append(entry)
    return result


def _unite_series(ours: list[Resource], theirs: list[Resource]) -> list[Resource]:
    result = {str(series["uid"]): series for series in ours}
    strays: list[Resource] = []
    for series in theirs:
        uid = series.get("uid")
        if not isinstance(uid, str):
            strays.append(series)
        elif uid in result:
            result[uid] = _unite_one_series(result[uid], series)
        else:
            result[uid] = _unite_one_series({"uid": uid}, series)
    return [*result.values(), *strays]


def _unite_one_series(ours: Resource, theirs: Resource) -> Resource:
    merged = {**theirs, **ours}
    _keep(merged, theirs, "description", _is_known_text)
    _keep_valid(merged, ours, theirs, "started", dates.is_sendable)
    _keep_valid(merged, ours, theirs, "number", is_unsigned)
    _keep(merged, theirs, "modality", _is_known_modality)
    merged["instance"] = _unite_instances(objects(ours.get("instance")), objects(theirs.get("instance")))
    return merged


def _unite_instances(ours: list[Resource], theirs: list[Resource]) -> list[Resource]:
    result = {str(instance["uid"]): instance for instance in ours}
    strays: list[Resource] = []
    for instance in theirs:
        uid = instance.get("uid")
        if not isinstance(uid, str):
            strays.append(instance)
            continue
        mine = result.get(uid, {})
        merged = {**instance, **mine}
        _keep_valid(merged, mine, instance, "number", is_unsigned)
        _keep(merged, instance, "title", _is_known_text)
        result[uid] = merged
    return [*result.values(), *strays]


def _keep(merged: Resource, theirs: Resource, key: str, rules: Callable[[object], bool]) -> None:
    """Let the platform's value stand where it passes `rules`, else ours."""
    if key in theirs and rules(theirs[key]):
        merged[key] = theirs[key]


def _keep_valid(merged: Resource, ours: Resource, theirs: Resource, key: str, valid: Callable[[object], bool]) -> None:
    """As `_keep`, and drop what nobody could send back."""
    _keep(merged, theirs, key, valid)
    if key not in ours and key in theirs and not valid(theirs[key]):
        del merged[key]


def _is_known_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value != NO_DESCRIPTION


def is_unsigned(value: object) -> bool:
    """Return whether `value` is a FHIR unsignedInt. Source: FHIR R4 datatypes."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_UNSIGNED


def _is_known_modality(value: object) -> bool:
    code = value.get("code") if isinstance(value, Mapping) else None
    return isinstance(code, str) and bool(code) and code != UNKNOWN_MODALITY
