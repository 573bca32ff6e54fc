"""Small pictures of studies and images: JPEG, or a drawn notice that says why there is none.

Whoever sees one is written down as having looked at the patient's data. Over gallery and pictures in internal/.
Changes when another picture is offered.
"""

from __future__ import annotations

from html import escape
from typing import Annotated

from fastapi import Path as UrlPath
from fastapi import Query, Request
from starlette.responses import Response

from interface.http.actor import Actor, CurrentActor
from interface.http.context import CurrentContext, WebContext
from interface.http.pages.render import language_of
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import gallery
from internal.errors import Transient
from internal.model import Instance

routes = Routes("", tags=["pictures"])

THUMBNAIL_EDGE = 192
PREVIEW_EDGE = 1024
Uid = Annotated[str, UrlPath(max_length=128, pattern=r"^[\x21-\x7e]+$")]
_EDGE = Query(ge=32, le=2048, description="Longest side in pixels.")

#: Reason: Indonesian and English, in two lines.
_NOTICES = {
    "no-pixels": (("Tidak ada gambar", "di objek ini"), ("No image", "in this object")),
    "report": (("Laporan", "terstruktur (SR)"), ("Structured", "report (SR)")),
    "document": (("Dokumen", "(PDF)"), ("Document", "(PDF)")),
    "video": (("Video", "tidak ditampilkan"), ("Video", "is not shown")),
    "unsupported": (("Format gambar ini", "tidak ditampilkan"), ("This kind of image", "is not shown")),
    "damaged": (("Gambar ini", "rusak"), ("This image", "is damaged")),
    "too-large": (("Gambar terlalu besar", "untuk ditampilkan"), ("Too large", "to be shown")),
    "too-slow": (("Terlalu lama", "untuk ditampilkan"), ("Takes too long", "to be shown")),
    "died": (("Gambar ini tidak", "dapat ditampilkan"), ("This image", "cannot be shown")),
    "purged": (("Gambar sudah dihapus", "dari router"), ("No longer kept", "on the router")),
    "busy": (("Sedang sibuk,", "muat ulang nanti"), ("Busy now,", "reload later")),
    "elsewhere": (("Tersimpan", "di node lain"), ("Kept", "on another node")),
}  # fmt: skip
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."
_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_VIDEOS = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(100, 110))


@routes.get("/studies/{study_uid}/thumbnail", right=Right.VIEW, response_class=Response,
            responses={200: {"content": {"image/jpeg": {}, "image/svg+xml": {}}}})
def thumbnail(study_uid: Uid, request: Request, context: CurrentContext, actor: CurrentActor) -> Response:
    """Return a picture of the image that stands for the study: the middle one of its largest series."""
    with context.reading() as tx:
        instance = gallery.representative(tx, study_uid)
    return _answer(request, context, actor, instance, THUMBNAIL_EDGE, None, "thumbnail")


@routes.get("/studies/{study_uid}/instances/{sop_uid}/preview", right=Right.VIEW, response_class=Response,
            responses={200: {"content": {"image/jpeg": {}, "image/svg+xml": {}}}})
def preview(
    study_uid: Uid, sop_uid: Uid, request: Request, context: CurrentContext, actor: CurrentActor,
    edge: Annotated[int, _EDGE] = PREVIEW_EDGE,
    frame: Annotated[int | None, Query(ge=1, le=1_000_000, description="Frame, from 1; else the middle one.")] = None,
) -> Response:
    """Return a picture of one image, for recognising it and not for diagnosis."""
    with context.reading() as tx:
        instance = gallery.current_instance(tx, study_uid, sop_uid)
    return _answer(request, context, actor, instance, edge, None if frame is None else frame - 1, "preview")


def _answer(
    request: Request, context: WebContext, actor: Actor, instance: Instance, edge: int, frame: int | None, what: str,
) -> Response:
    context.note_view(actor, [instance.header.study_uid], what)
    language = language_of(request)
    etag = f'"{context.pictures.etag(instance, edge, frame)}-{language}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Cookie, Accept-Language"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    try:
        drawn = context.pictures.picture(instance, edge, frame, context.clock.now_ms())
    except Transient:
        return Response(notice("busy", language), 503, headers={"Retry-After": "2", "Picture-Reason": "busy"},
                        media_type="image/svg+xml")
    if not drawn.reason:
        return Response(drawn.data, media_type="image/jpeg", headers=headers)
    del headers["ETag"]  # the next answer may be a picture
    reason = _kind(instance) if drawn.reason in ("no-pixels", "unsupported") else ""
    reason = reason or (drawn.reason if drawn.reason in _NOTICES else "died")
    return Response(notice(reason, language), media_type="image/svg+xml", headers=headers | {"Picture-Reason": reason})


def _kind(instance: Instance) -> str:
    if instance.header.sop_class_uid.startswith(_DOCUMENTS):
        return "document"
    if instance.header.sop_class_uid.startswith(_REPORTS):
        return "report"
    return "video" if instance.header.transfer_syntax_uid.startswith(_VIDEOS) else ""


def notice(reason: str, language: str) -> bytes:
    """Return the drawn notice that stands where there is no picture."""
    first, second = (escape(line) for line in _NOTICES[reason][language != "id"])
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="192" height="192" viewBox="0 0 192 192" role="img"'
        f' aria-label="{first} {second}"><rect width="192" height="192" fill="#e4e7eb"/>'
        '<path d="M72 58h48v36H72zM72 94l14-16 12 12 8-8 14 12" fill="none" stroke="#6b7684" stroke-width="3"/>'
        '<g font-family="sans-serif" font-size="15" fill="#3c4753" text-anchor="middle">'
        f'<text x="96" y="128">{first}</text><text x="96" y="149">{second}</text></g></svg>'
    ).encode()
