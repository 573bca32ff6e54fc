"""`main.py alerts`: lists, acknowledges, and tries the ways of a rule against real receivers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from internal import alerts
from internal.alerts import Condition, Finding
from internal.store import Store
from tests.contract.destinations.hospital import Hospital
from tests.contract.destinations.mail_server import MailServer

ROOT = Path(__file__).parents[3]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "main.py"), "alerts", *words, "--config",
                           str(folder / "router.conf")], capture_output=True, text=True, timeout=60, check=False)


def test_a_rule_is_tried_and_an_alert_acknowledged(tmp_path: Path) -> None:
    hospital, mail = Hospital(), MailServer("none")
    hospital.statuses.append(403)
    (tmp_path / "router.conf").write_text(
        f"[router]\nlanguage = en\n[mail]\nhost = 127.0.0.1\nport = {mail.port}\nsecurity = none\n"
        f"sender = r@rs.example\n[alert:it]\nmail_to = it@rs.example\nwebhook_url = {hospital.url}/geheim-token-1\n")
    (tmp_path / "router.conf").chmod(0o600)
    first = run(tmp_path, "test", "it")
    second = run(tmp_path, "test", "it")
    hospital.close()
    mail.close()
    assert first.returncode == 1 and "FAILED webhook" in first.stdout and "ok     mail" in first.stdout
    assert second.returncode == 0 and len(mail.taken) == 2
    assert json.loads(hospital.told[1][1])["text"].startswith("TEST")
    assert "geheim-token-1" not in first.stdout + first.stderr
    assert run(tmp_path, "test", "nobody").returncode == 1
    (tmp_path / "data").mkdir()
    store = Store.open(f"sqlite:///{tmp_path / 'data' / 'index.db'}")
    store.migrate()
    with store.transaction() as tx:
        alert_id = alerts.raise_alert(tx, "it", Finding(Condition.CLOCK, "satusehat", {"seconds": 99}), quiet_ms=0,
                                      channels=(), now=1)
    store.close()
    assert run(tmp_path, "ack", str(alert_id)).returncode == 0
    listed, = json.loads(run(tmp_path, "--json").stdout)
    assert listed["acknowledged_by"].startswith("cli:") and listed["condition"] == "clock"
