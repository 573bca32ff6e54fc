"""The application: every family of routes, the errors they may raise, and the protections around them.

`FAMILIES` lists the families; a family is a `Routes` object. Changes when a family is added.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from interface.http import api, health, pages, security
from interface.http.auth import login, oidc
from interface.http.auth.doorkeeper import Gatekeeper
from interface.http.context import WebContext
from interface.http.pages.render import page, wants_page
from interface.http.problems import Problem, answer, body_of, problem_of, problem_of_status
from interface.http.routes import GuardedRoute, Routes
from internal.errors import RouterError

FAMILIES: tuple[Routes, ...] = (health.routes, login.routes, oidc.routes, *pages.FAMILIES, *api.FAMILIES)


def create_app(context: WebContext) -> FastAPI:
    """Return the application. Raises ValueError for a route that declares no right."""
    app = FastAPI(title="SATUSEHAT DICOM Router", version=context.version, docs_url=None, redoc_url=None,
                  openapi_url=None, redirect_slashes=False)
    app.state.context = context
    app.state.doorkeeper = Gatekeeper(context)
    for family in FAMILIES:
        family.add_to(app)
    _check_rights(app)
    app.add_exception_handler(HTTPException, _on_status)
    app.add_exception_handler(RouterError, _on_router_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    http = context.settings.http
    # The last one added is the outermost.
    app.add_middleware(security.LastNet)
    app.add_middleware(security.Rate, per_minute=http.requests_per_minute)
    app.add_middleware(security.Hosts, names=security.own_names(http.host_names))
    app.add_middleware(security.Headers)
    return app


def guarded_routes(app: FastAPI) -> Iterator[GuardedRoute]:
    """Yield every route with its right. Raises ValueError for one that has none."""
    for route in app.router.routes:
        if not isinstance(route, GuardedRoute):
            raise ValueError(f"{getattr(route, 'path', route)} declares no right: add it through Routes")
        yield route


def _check_rights(app: FastAPI) -> None:
    for _ in guarded_routes(app):
        pass


def _failed(request: Request, problem: Problem) -> Response:
    if not wants_page(request):
        return answer(problem)
    if problem.code in ("not-signed-in", "password-change") and request.method == "GET":
        target = "/password" if problem.code == "password-change" else f"/login?next={quote(request.url.path)}"
        return RedirectResponse(target, status_code=303)
    return page(request, "problem.html", status=problem.status_code, problem=body_of(problem))


async def _on_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _failed(request, problem_of_status(error))


async def _on_router_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RouterError)
    return _failed(request, problem_of(error))


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Name what is wrong, never repeat what was sent."""
    assert isinstance(error, RequestValidationError)
    sentences = [f"{'.'.join(str(part)[:60] for part in one['loc'][:6])}: {one['msg'][:200]}"
                 for one in error.errors()[:20]]
    return _failed(request, Problem("invalid", *sentences))
