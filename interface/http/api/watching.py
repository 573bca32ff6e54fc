"""/api/v1/alerts and /api/v1/settings: what is wrong, who knows of it, and how this router is configured.

Changes when alerts can be handled in another way, or settings are shown in another way.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from interface.acting import Action
from interface.alert_texts import detail_of, title_of
from interface.alerts import build_alerts
from interface.http.api import shapes
from interface.http.api.changing import Answer, CurrentChange
from interface.http.api.parameters import PAGE, AfterNumber, Limit, RowId
from interface.http.context import CurrentContext, WebContext
from interface.http.rights import Right
from interface.http.routes import Routes
from internal import alerts
from internal.alerts import Alert
from internal.config.rendering import listed_settings
from internal.errors import NotFound
from internal.fhir import dates

routes = Routes("/api/v1", tags=["watching"])
RuleName = Annotated[str, Path(pattern=r"^[a-z0-9_-]{1,32}$", description="NAME of a section [alert:NAME]")]
OpenOnly = Annotated[bool, Query(description="Only what goes on.")]


@routes.get("/alerts", right=Right.VIEW)
def list_alerts(
    context: CurrentContext, open_only: OpenOnly = False, after: AfterNumber = 0, limit: Limit = PAGE,
) -> shapes.AlertPage:
    """Return what is or was wrong, newest first."""
    with context.reading() as tx:
        rows = alerts.past_alerts(tx, limit + 1, after or None, open_only=open_only)
    shown = rows[:limit]
    return shapes.AlertPage(alerts=[alert_shape(context, one) for one in shown],
                            after=shown[-1].alert_id if len(rows) > limit else 0)


@routes.post("/alerts/{alert_id}/acknowledge", right=Right.OPERATE)
def acknowledge(alert_id: RowId, change: CurrentChange) -> shapes.AlertShape:
    """Say that somebody knows: no reminders until it is over."""

    def make(action: Action) -> Answer:
        one = alerts.acknowledge(action.tx, alert_id, who=change.actor.author, now=action.now)
        return alert_shape(change.context, one).model_dump()

    return shapes.AlertShape(**change.make("alert.acknowledge", make, asked=alert_id, subject=str(alert_id)))


@routes.post("/alerts/rules/{name}/test", right=Right.ADMINISTER)
def test_rule(name: RuleName, change: CurrentChange) -> list[shapes.ProbeShape]:
    """Send a test message over every channel of a rule, now and past the queue."""
    if name not in change.context.settings.alerts:
        raise NotFound("no such alert rule")

    def act() -> Answer:
        lane = build_alerts(change.context.settings)
        try:
            lines = [shapes.ProbeShape(name=channel, ok=ok, text=text, advice="")
                     for channel, ok, text in lane.send_test(name, change.context.clock.now_ms())]
        finally:
            lane.close()
        return change.tested("alert.test", name, lines)

    return [shapes.ProbeShape(**line) for line in change.once("alert.test", act, asked=name)["lines"]]


@routes.get("/settings", right=Right.ADMINISTER)
def settings_in_force(context: CurrentContext) -> list[shapes.SettingShape]:
    """Return every setting as it counts, with where it came from; secrets are masked."""
    return [shapes.SettingShape(section=section, key=one.setting.key, value=one.value, source=one.source)
            for section, listed in listed_settings(context.settings) for one in listed]


def alert_shape(context: WebContext, one: Alert) -> shapes.AlertShape:
    """Return an alert as the API shows it."""
    zone = dates.zone(context.settings.satusehat.tz_name)
    title = {language: title_of(one.condition, one.subject, language) for language in ("id", "en")}
    detail = {language: detail_of(one.condition, one.subject, one.detail, language, zone) for language in ("id", "en")}
    return shapes.AlertShape(
        alert_id=one.alert_id, rule=one.rule, condition=str(one.condition), subject=one.subject,
        title=shapes.Words(**title), detail=shapes.Words(**detail), raised_at=one.raised_at, told_at=one.told_at,
        acknowledged_at=one.acknowledged_at, acknowledged_by=one.acknowledged_by, cleared_at=one.cleared_at)
