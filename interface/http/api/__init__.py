"""The API: one module per family; each family's routes are listed in FAMILIES."""

from __future__ import annotations

from interface.http.api import (
    accounts,
    actions,
    document,
    feed,
    jobs,
    metrics,
    operations,
    pictures,
    revisions,
    studies,
    watching,
)
from interface.http.routes import Routes

FAMILIES: tuple[Routes, ...] = (
    studies.routes, actions.routes, jobs.routes, feed.routes, operations.routes, watching.routes, accounts.routes,
    metrics.routes, document.routes, pictures.routes, revisions.routes,
)
