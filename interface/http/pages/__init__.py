"""The pages: one module per family; each family's routes are listed in FAMILIES."""

from __future__ import annotations

from interface.http.pages import assets, home
from interface.http.routes import Routes

FAMILIES: tuple[Routes, ...] = (assets.routes, home.routes)
