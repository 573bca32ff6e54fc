"""Settings and the policy file: what is taken over, what is left alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interface.dimse.pdu import AssociateRequest
from interface.dimse.policy import LIMITS, PolicyFile, parse_policy
from interface.dimse.settings import ReceiveSettings
from internal.errors import ConfigurationInvalid, RouterError
from internal.spool import Spool

REQUEST = AssociateRequest(1, "DCMROUTER", "CT1", "1.2.840.10008.3.1.1.1", (), 0, "", (), b"")


def test_settings_survive_json_and_unknown_ones_are_refused() -> None:
    settings = ReceiveSettings(ae_titles=("A", "B"), bind=("::1",), port=0, fsync=False)
    assert ReceiveSettings.from_json(settings.to_json()) == settings
    with pytest.raises(ValueError, match="nonsense"):
        ReceiveSettings.from_json('{"nonsense": 1}')


@pytest.mark.parametrize(("unknown", "callers", "expected"), [
    ("accept", {}, None), ("hold", {}, None), ("refuse", {}, "1/1/3"), ("refuse", {"CT1": "accept"}, None),
    ("refuse", {"CT1@10.0.0.1": "accept"}, None), ("refuse", {"CT1@10.0.0.2": "accept"}, "1/1/3"),
    ("accept", {"CT1": "refuse"}, "1/1/3"), ("accept", {"CT1": "refuse", "CT1@10.0.0.1": "accept"}, None),
])  # fmt: skip
def test_callers(unknown: str, callers: dict[str, str], expected: str | None) -> None:
    settings = replace(ReceiveSettings(), unknown_callers=unknown)  # type: ignore[arg-type]
    listed = [{"aet": name.partition("@")[0], "address": name.partition("@")[2], "verdict": verdict}
              for name, verdict in callers.items()]
    policy = parse_policy(settings, json.dumps({"callers": listed}).encode())
    rejection = policy.judge(REQUEST, "10.0.0.1")
    assert (str(rejection) if rejection else None) == expected


def test_reload_takes_the_limits_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found: list[ReceiveSettings | RouterError] = []

    def read() -> ReceiveSettings:
        if isinstance(found[0], RouterError):
            raise found[0]
        return found[0]

    settings = ReceiveSettings()
    spool = Spool.open(tmp_path / "spool")
    spool.publish("policy.json", json.dumps({"callers": [{"aet": "A", "address": "", "verdict": "refuse"}]}).encode())
    policy = PolicyFile(spool, settings, read)
    every = {name: getattr(settings, name) + 1 for name in LIMITS}
    found[:] = [replace(settings, **every, port=1, unknown_callers="refuse")]
    policy.reload()
    assert policy.current.settings == replace(settings, **every)
    assert policy.current.callers == {("A", ""): "refuse"}
    assert "after a restart: port, unknown_callers" in caplog.text
    found[:] = [ConfigurationInvalid("router.conf, line 3: no number")]
    policy.reload()
    assert policy.current.settings == replace(settings, **every)
    assert "line 3" in caplog.text and "stay in force" in caplog.text


_KEYS = ["callers", "aet", "address", "verdict"]


@given(st.one_of(st.binary(max_size=60), st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
       lambda children: st.lists(children, max_size=3) | st.dictionaries(
           st.sampled_from(_KEYS), children, max_size=3)).map(lambda v: json.dumps(v).encode())))
def test_any_file_is_a_policy_or_a_value_error(data: bytes) -> None:  # fmt: skip
    try:
        parse_policy(ReceiveSettings(), data)
    except ValueError:
        pass
