"""/metrics for Prometheus, with a key of scope `metrics`, or without one from this machine ([http] open_metrics).

Changes when the figures are to be had in another way.
"""

from __future__ import annotations

from fastapi.responses import Response

from interface import metrics
from interface.http.context import CurrentContext, WebContext
from interface.http.rights import Right
from interface.http.routes import Routes
from internal.errors import RouterError
from internal.store import Store

routes = Routes(tags=["metrics"])


@routes.get("/metrics", right=Right.METRICS, response_class=Response, responses={200: {
    "description": "Prometheus text format 0.0.4.", "content": {"text/plain": {"schema": {"type": "string"}}}}})
def read(context: CurrentContext) -> Response:
    """Return the figures of this node; never patient data."""
    settings = context.settings
    text = metrics.render(metrics.Sources(
        spool=context.spool, store=_store(context), lanes=settings.lane_names(),
        min_free_bytes=settings.spool.min_free, now_ms=context.clock.now_ms(), version=context.version,
        environment=context.environment))
    return Response(text, media_type=metrics.CONTENT_TYPE)


def _store(context: WebContext) -> Store | None:
    try:
        return context.store
    except RouterError:
        return None
