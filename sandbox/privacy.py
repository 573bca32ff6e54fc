"""What of a patient the platform shows: masked answers, and patients closed by consent.

Used by the FHIR verbs and the control interface. Imports `database`. Changes when masking or consent changes.
Source: fact sheet satusehat.md sections 2.2, 2.3 and 2.5. The mask of the name is our guess.
"""

from __future__ import annotations

from typing import Any

from sandbox.database import Database

NIK_SYSTEM = "https://fhir.kemkes.go.id/id/nik"
MASKED_NIK = "################"
MODES = ("suppressed", "forbidden", "normal")
_SHOWN = ("active", "id", "identifier", "link", "meta", "resourceType")


def mask_name(text: str) -> str:
    """Each word keeps its first letter, the rest become asterisks: `Siti Aminah` -> `S*** A*****`."""
    return " ".join(word[:1] + "*" * (len(word) - 1) for word in text.split())


def mask_patient(patient: dict[str, Any], *, with_name: bool) -> dict[str, Any]:
    """The Patient as other parties see it; the (masked) name appears in search results only."""
    shown = {key: value for key, value in patient.items() if key in _SHOWN}
    identifiers = patient.get("identifier")
    if isinstance(identifiers, list):
        shown["identifier"] = [
            {**one, "value": MASKED_NIK} if str(one.get("system", "")).startswith(NIK_SYSTEM) else one
            for one in identifiers if isinstance(one, dict)]
    names = patient.get("name")
    if with_name and isinstance(names, list):
        shown["name"] = [_mask_human_name(name) for name in names if isinstance(name, dict)]
    return shown


def _mask_human_name(name: dict[str, Any]) -> dict[str, Any]:
    masked: dict[str, Any] = {}
    for key, value in name.items():
        if key in ("text", "family"):
            masked[key] = mask_name(str(value))
        elif key == "given" and isinstance(value, list):
            masked[key] = [mask_name(str(part)) for part in value]
        elif key == "use":
            masked[key] = value
    return masked


class PrivacyTable:
    """Patients whose data the platform suppresses or forbids; kept in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set_mode(self, patient_id: str, mode: str) -> None:
        """Close (`suppressed`, `forbidden`) or open (`normal`) one patient."""
        with self._database.transaction():
            self._database.query("DELETE FROM privacy WHERE patient_id=?", (patient_id,))
            if mode != "normal":
                self._database.query("INSERT INTO privacy VALUES (?,?)", (patient_id, mode))

    def mode_of(self, resource: dict[str, Any]) -> str:
        """The mode that applies to a resource: its own id if it is a Patient, else its subject."""
        modes = dict(self._database.query("SELECT patient_id, mode FROM privacy"))
        if not modes:
            return "normal"
        if resource.get("resourceType") == "Patient":
            return str(modes.get(resource.get("id"), "normal"))
        subject = resource.get("subject")
        reference = subject.get("reference") if isinstance(subject, dict) else None
        return str(modes.get(str(reference).rpartition("/")[2], "normal"))
