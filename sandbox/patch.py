"""JSON Patch as far as the platform takes it: `add` and `replace`.

Used by the FHIR verbs. Imports the standard library. Changes when the platform accepts other operations.
Source: RFC 6902, RFC 6901, fact sheet satusehat.md section 2.4.
"""

from __future__ import annotations

import copy
from typing import Any

OPERATION_LIMIT = 200
DEPTH_LIMIT = 40
_FROZEN = ("id", "resourceType", "meta")


class PatchRefused(ValueError):
    """The patch cannot be applied; the text says which operation and why."""


def apply_patch(resource: dict[str, Any], operations: object) -> dict[str, Any]:
    """A patched copy of `resource`; raises PatchRefused and then nothing was changed."""
    if not isinstance(operations, list) or not 0 < len(operations) <= OPERATION_LIMIT:
        raise PatchRefused(f"expected an array of 1 to {OPERATION_LIMIT} operations")
    patched = copy.deepcopy(resource)
    for position, operation in enumerate(operations):
        try:
            _apply(patched, operation)
        except PatchRefused as error:
            raise PatchRefused(f"operation {position}: {error}") from error
    return patched


def _apply(resource: dict[str, Any], operation: object) -> None:
    if not isinstance(operation, dict) or operation.get("op") not in ("add", "replace"):
        raise PatchRefused("only add and replace are supported")
    pointer = operation.get("path")
    if not isinstance(pointer, str) or not pointer.startswith("/") or "value" not in operation:
        raise PatchRefused("path and value are needed")
    names = [name.replace("~1", "/").replace("~0", "~") for name in pointer[1:].split("/")]
    if names[0] in _FROZEN or len(names) > DEPTH_LIMIT:
        raise PatchRefused("this path cannot be patched")
    target: Any = resource
    for name in names[:-1]:
        target = _step(target, name)
    _put(target, names[-1], operation["value"], insert=operation["op"] == "add")


def _step(target: object, name: str) -> object:
    if isinstance(target, dict) and name in target:
        return target[name]
    if isinstance(target, list):
        return target[_position(name, len(target) - 1)]
    raise PatchRefused("the path does not exist")


def _put(target: object, name: str, value: object, *, insert: bool) -> None:
    if isinstance(target, dict):
        if not insert and name not in target:
            raise PatchRefused("the path does not exist")
        target[name] = value
    elif isinstance(target, list) and insert:
        target.insert(len(target) if name == "-" else _position(name, len(target)), value)
    elif isinstance(target, list):
        target[_position(name, len(target) - 1)] = value
    else:
        raise PatchRefused("the path does not exist")


def _position(name: str, last: int) -> int:
    if not name.isascii() or not name.isdigit() or len(name) > 6 or int(name) > last:
        raise PatchRefused("the path does not exist")
    return int(name)
