"""What is answered when a request fails: one shape for the API, one page for people, one table from errors to status.

    {"error": "csrf", "message": {"id": "...", "en": "..."}, "next_step": {"id": "...", "en": "..."}, "detail": []}

Imports errors. Changes when a new kind of failure has to be told apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from internal import errors

# code: (status, Indonesian, English, what to do in Indonesian, in English)
_TEXTS: Mapping[str, tuple[int, str, str, str, str]] = {
    "bad-request": (400, "Permintaan ini tidak dapat dibaca.", "This request cannot be read.",
                    "Periksa isinya.", "Check what was sent."),
    "too-deep": (400, "JSON ini bersarang terlalu dalam.", "This JSON is nested too deeply.", "", ""),
    "not-signed-in": (401, "Anda belum masuk.", "You are not logged in.",
                      "Masuk, atau kirim API key.", "Log in, or send an API key."),
    "not-allowed": (403, "Anda tidak boleh melakukan ini.", "You may not do this.",
                    "Minta hak kepada admin.", "Ask an admin for the right."),
    "csrf": (403, "Formulir ini tidak berasal dari sesi Anda.", "This form does not come from your session.",
             "Muat ulang halaman dan coba lagi.", "Load the page again and retry."),
    "password-change": (403, "Kata sandi harus diganti dahulu.", "The password has to be changed first.",
                        "Buka /password.", "Open /password."),
    "not-found": (404, "Tidak ditemukan.", "Nothing was found here.", "", ""),
    "method": (405, "Metode ini tidak ada di sini.", "This method does not exist here.", "", ""),
    "slow": (408, "Permintaan datang terlalu lambat.", "The request came too slowly.", "", ""),
    "conflict": (409, "Ini bertentangan dengan keadaan sekarang.", "This conflicts with the present state.", "", ""),
    "too-large": (413, "Isi permintaan terlalu besar.", "The body is too large.", "", ""),
    "encoding": (415, "Isi terkompresi tidak diterima.", "Compressed bodies are not accepted.",
                 "Kirim tanpa Content-Encoding.", "Send it without Content-Encoding."),
    "wrong-host": (421, "Nama host ini bukan milik router.", "This host name is not the router's.",
                   "Tambahkan ke [http] host_names.", "Add it to [http] host_names."),
    "invalid": (422, "Ada isian yang salah.", "Something that was filled in is wrong.",
                "Perbaiki isian yang disebut.", "Correct what is named."),
    "replayed": (422, "Idempotency-Key ini sudah dipakai untuk permintaan lain.",
                 "This Idempotency-Key was used for another request.",
                 "Pakai kunci baru untuk permintaan baru.", "Use a new key for a new request."),
    "refused": (422, "Ini ditolak.", "This was refused.", "", ""),
    "too-often": (429, "Terlalu banyak permintaan.", "Too many requests.",
                  "Tunggu sebentar, lalu coba lagi.", "Wait a little, then try again."),
    "internal": (500, "Router mengalami kesalahan.", "The router has failed.",
                 "Sebutkan nomor ini kepada IT.", "Tell IT this number."),
    "busy": (503, "Basis data sedang tidak menjawab.", "The database does not answer now.",
             "Coba lagi sebentar lagi.", "Try again in a moment."),
    "full": (507, "Disk penuh.", "The disk is full.", "Beri tahu IT.", "Tell IT."),
}  # fmt: skip

_OF_STATUS = {400: "bad-request", 401: "not-signed-in", 403: "not-allowed", 404: "not-found", 405: "method",
              408: "slow", 409: "conflict", 413: "too-large", 415: "encoding", 422: "invalid", 429: "too-often"}

# The first class that fits; RouterError itself comes last.
_OF_ERROR: tuple[tuple[type[errors.RouterError], str], ...] = (
    (errors.NotAllowed, "conflict"), (errors.NotFound, "not-found"), (errors.StorageFull, "full"),
    (errors.Transient, "busy"), (errors.StorageFailed, "busy"), (errors.BytesMissing, "not-found"),
    (errors.Refused, "refused"), (errors.ConfigurationInvalid, "invalid"), (errors.RouterError, "conflict"),
)


class Problem(HTTPException):
    """A request that fails for a reason of `_TEXTS`; `detail` says more, in sentences without patient data."""

    def __init__(self, code: str, *detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(_TEXTS[code][0], headers=dict(headers or {}))
        self.code = code
        self.sentences: Sequence[Any] = detail


def problem_of(error: errors.RouterError) -> Problem:
    """Return what is answered to an error that reached the edge; its sentence goes along."""
    code = next(code for kind, code in _OF_ERROR if isinstance(error, kind))
    return Problem(code, str(error), headers={"Retry-After": "5"} if code == "busy" else None)


def problem_of_status(error: HTTPException) -> Problem:
    """Return the framework's own answers (404, 405 ...) in our shape."""
    if isinstance(error, Problem):
        return error
    code = _OF_STATUS.get(error.status_code, "bad-request" if error.status_code < 500 else "internal")
    return Problem(code, headers=error.headers)


def body_of(problem: Problem) -> dict[str, Any]:
    """Return the JSON object of a problem."""
    _, text_id, text_en, step_id, step_en = _TEXTS[problem.code]
    return {"error": problem.code, "message": {"id": text_id, "en": text_en},
            "next_step": {"id": step_id, "en": step_en}, "detail": list(problem.sentences)}


def answer(problem: Problem) -> JSONResponse:
    """Return the JSON answer of a problem."""
    return JSONResponse(body_of(problem), status_code=problem.status_code, headers=problem.headers)
