"""How a route is declared: with the right it needs, by this one mechanism, or not at all.

    routes = Routes("/api/v1", tags=["studies"])

    @routes.get("/studies/{study_uid}", right=Right.VIEW)
    def study(study_uid: str, context: CurrentContext, actor: CurrentActor) -> ...

The right is checked before anything of the body is read. `create_app` refuses a route that was made in another way.
Changes when a route has to declare something new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from interface.http.rights import Right

Handler = TypeVar("Handler", bound=Callable[..., Any])
MAX_BODY_BYTES = 1024 * 1024


class Doorkeeper(Protocol):
    """Lets a request through or raises Problem; returns the receive function that the handler is to use."""

    async def admit(self, scope: Scope, receive: Receive, right: Right, max_body_bytes: int, in_api: bool) -> Receive:
        """Find out who it is, check the right, the origin and the size; put the actor into the scope's state.

        `in_api` : the route is part of the documented API; only there may a key change something.
        """


class GuardedRoute(APIRoute):
    """A route with the right that it needs; `Routes` makes a class of its own for each."""

    right: Right
    max_body_bytes: int

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the doorkeeper first; another method than this route's is answered 405 by the framework."""
        if not self.methods or scope["method"] in self.methods:
            doorkeeper: Doorkeeper = scope["app"].state.doorkeeper
            receive = await doorkeeper.admit(scope, receive, self.right, self.max_body_bytes,
                                             self.include_in_schema)
        await super().handle(scope, receive, send)


def _guarded(right: Right, max_body_bytes: int) -> type[GuardedRoute]:
    return type("GuardedRoute", (GuardedRoute,), {"right": right, "max_body_bytes": max_body_bytes})


@dataclass
class Routes:
    """The routes of one family; `create_app` adds each family to the application."""

    prefix: str = ""
    tags: list[str] = field(default_factory=list)
    in_schema: bool = True
    _declared: list[tuple[str, Callable[..., Any], dict[str, Any]]] = field(default_factory=list)

    def get(self, path: str, *, right: Right, **options: Any) -> Callable[[Handler], Handler]:
        """Declare a GET; `options` are FastAPI's."""
        return self._route(path, ["GET"], right, MAX_BODY_BYTES, options)

    def post(
        self, path: str, *, right: Right, max_body_bytes: int = MAX_BODY_BYTES, **options: Any,
    ) -> Callable[[Handler], Handler]:
        """Declare a POST; a larger body than 1 MB has to be asked for."""
        return self._route(path, ["POST"], right, max_body_bytes, options)

    def put(self, path: str, *, right: Right, **options: Any) -> Callable[[Handler], Handler]:
        """Declare a PUT."""
        return self._route(path, ["PUT"], right, MAX_BODY_BYTES, options)

    def patch(self, path: str, *, right: Right, **options: Any) -> Callable[[Handler], Handler]:
        """Declare a PATCH."""
        return self._route(path, ["PATCH"], right, MAX_BODY_BYTES, options)

    def delete(self, path: str, *, right: Right, **options: Any) -> Callable[[Handler], Handler]:
        """Declare a DELETE."""
        return self._route(path, ["DELETE"], right, MAX_BODY_BYTES, options)

    def add_to(self, app: FastAPI) -> None:
        """Add everything declared here to the application."""
        for path, endpoint, options in self._declared:
            app.router.add_api_route(path, endpoint, **options)

    def _route(
        self, path: str, methods: list[str], right: Right, max_body_bytes: int, options: dict[str, Any],
    ) -> Callable[[Handler], Handler]:
        given = {"tags": self.tags, "include_in_schema": self.in_schema, **options}

        def declare(endpoint: Handler) -> Handler:
            self._declared.append((self.prefix + path, endpoint, {
                **given, "methods": methods, "route_class_override": _guarded(right, max_body_bytes)}))
            return endpoint

        return declare
