"""The pages: one module per family; each family's routes are listed in FAMILIES."""

from __future__ import annotations

from interface.http.pages import (
    assets,
    audit,
    destinations,
    devices,
    preferences,
    progress,
    rule_trial,
    rules,
    settings,
    studies,
    study,
    study_acts,
    today,
    users,
    work,
)
from interface.http.routes import Routes

FAMILIES: tuple[Routes, ...] = (
    assets.routes, preferences.routes, today.routes, studies.routes, study.routes, study_acts.routes, work.routes,
    destinations.routes, devices.routes, rules.routes, rule_trial.routes,
    settings.routes, audit.routes, users.routes, progress.routes,
)
