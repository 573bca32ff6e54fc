"""The API: one module per family; each family's routes are listed in FAMILIES."""

from __future__ import annotations

from interface.http.api import pictures, revisions
from interface.http.routes import Routes

FAMILIES: tuple[Routes, ...] = (pictures.routes, revisions.routes)
