"""The API's own description: OpenAPI 3 at /api/swagger.json, and pages to read and try it at /docs and /api/docs.

Swagger UI is part of this package and runs under the same policy as the pages: no script or style from elsewhere.
Changes when the API is described in another way.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response

from interface.http.api import shapes
from interface.http.pages.render import page
from interface.http.rights import Right
from interface.http.routes import GuardedRoute, Routes

routes = Routes(in_schema=False)

_ABOUT = """\
Everything the pages can do, for other systems: find studies, follow them, act on them, and be told of changes.

* Send `Authorization: Bearer rk_...` with a key that an admin made under /api/v1/keys or on the Users page. A key has
  the rights that it was given: view, operate, administer, metrics, orders.
* Moments are UTC in epoch milliseconds.
* Every answer that is no success has the same shape: `error` (a fixed word), `message` and `next_step` in Bahasa
  Indonesia and English, `detail` (sentences).
* Searches stand in bodies: nothing that names a patient is ever part of an address.
* Every POST takes an `Idempotency-Key`: repeated within a day, it gives the first answer and changes nothing.
* Every change, and every look at a patient's data, is written into the audit trail.
"""
_TAGS = {
    "studies": "Find studies; their images, their way, their receipts.", "jobs": "What must go where.",
    "actions": "What people order.", "events": "What happened, and a stream that says so.",
    "operations": "Lanes, devices, aliases, orders.", "watching": "Alerts, settings.",
    "accounts": "Users and API keys.",
    "metrics": "Figures for Prometheus.",
}
_ERRORS = {
    "400": "It cannot be read", "401": "Not logged in", "403": "Not allowed", "404": "Not found",
    "409": "It conflicts with the present state", "413": "The body is too large", "422": "Something in it is wrong",
    "429": "Too many requests", "503": "The database does not answer now",
}


@routes.get("/api/swagger.json", right=Right.VIEW)
def swagger(request: Request) -> JSONResponse:
    """Return the OpenAPI document."""
    return JSONResponse(document_of(request.app), headers={"Cache-Control": "private, max-age=60"})


@routes.get("/docs", right=Right.VIEW)
@routes.get("/api/docs", right=Right.VIEW)
@routes.get("/api", right=Right.VIEW)
def docs(request: Request) -> Response:
    """Return the page to read and try the API."""
    return page(request, "api_docs.html")


def document_of(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an application, with each route's right and the one shape of errors."""
    if app.openapi_schema is None:
        app.openapi_schema = _build(app)
    return app.openapi_schema


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="SATUSEHAT DICOM Router", version=app.version, description=_ABOUT, routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()])
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key, rk_..."},
        "session": {"type": "apiKey", "in": "cookie", "name": "router",
                    "description": "A login of the pages; changes also need X-CSRF-Token."},
    }
    error = shapes.Error.model_json_schema(ref_template="#/components/schemas/{model}")
    components["schemas"] |= error.pop("$defs", {})
    components["schemas"]["Error"] = error
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    for route in app.routes:
        if isinstance(route, GuardedRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete(document["paths"][route.path_format][method.lower()], route.right)
    return document


def _complete(operation: dict[str, Any], right: Right) -> None:
    """Say which right an operation needs and how it fails."""
    operation["security"] = [{"key": []}, {"session": []}] if right is not Right.OPEN else []
    operation["x-right"] = str(right)
    operation["description"] = f"{operation.get('description', '')}\n\nRight: `{right}`.".strip()
    for status, text in _ERRORS.items():
        operation["responses"][status] = {"description": text, "content": {"application/json": {
            "schema": {"$ref": "#/components/schemas/Error"}}}}
