"""Log lines: one per fact, escaped, without secret or patient; a closed output ends nothing."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interface.log_redaction import Redactor
from interface.logs import DEBUG, DETAIL, INFO, PHRASES, configure, event, mask_token
from internal.config import Secret
from internal.errors import Refused
from tests.examples import examples

ROOT = Path(__file__).parents[3]
log = logging.getLogger("router.test")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in list(logging.Logger.manager.loggerDict)}
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in list(logging.Logger.manager.loggerDict):
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))
    sys.excepthook, threading.excepthook = hooks


def started(verbosity: int = 0, form: str = "text", secrets: tuple[str, ...] = ()) -> io.StringIO:
    output = io.StringIO()
    # pytest's own handlers raise at a wrong % in a message, and would keep every line.
    logging.getLogger().handlers.clear()
    configure(verbosity, form, secrets, "deliver", output)
    return output


def test_a_line_has_time_level_role_phrase_and_fields() -> None:
    output = started()
    event(log, INFO, PHRASES["sent"], study="1.2.3", job=12, note=None, reason="no order yet", url="a=b", empty="")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d INFO \[deliver\] DICOM sent successfully study=1\.2\.3 "
        r'job=12 reason="no order yet" url="a=b" empty=""\n', output.getvalue())


def test_json_has_the_same_facts() -> None:
    output = started(form="json")
    event(log, INFO, "Study held", study="1.2.3", job=12, held=True, message="other", error="x")
    line = json.loads(output.getvalue())
    assert {key: line[key] for key in line if key != "time"} == {
        "level": "INFO", "role": "deliver", "logger": "router.test", "message": "Study held", "study": "1.2.3",
        "job": 12, "held": True, "message_": "other", "error_": "x"}


def test_plain_extra_fields_are_fields_too() -> None:
    output = started()
    log.info("Stored %s", "1.2", extra={"study": "1.2.3", "fields": {"job": 4}})
    assert output.getvalue().endswith("Stored 1.2 job=4 study=1.2.3\n")


@pytest.mark.parametrize(("verbosity", "expected"), [(0, 1), (1, 2), (2, 3), (5, 3)])
def test_each_v_shows_more(verbosity: int, expected: int) -> None:
    output = started(verbosity)
    for level in (INFO, DETAIL, DEBUG):
        event(log, level, "fact")
    assert len(output.getvalue().splitlines()) == expected


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=50), st.text(max_size=50), st.sampled_from(["text", "json"]))
def test_whatever_is_logged_stays_on_one_line(message: str, value: str, form: str) -> None:
    output = started(form=form)
    event(log, INFO, message, value=value)
    log.info("%s %d", message)
    log.info(message, value)
    lines = output.getvalue().split("\n")
    assert len(lines) == 4 and lines[3] == ""
    assert all(line.isprintable() for line in lines)
    if form == "json":
        assert all(json.loads(line)["level"] == "INFO" for line in lines[:3])


def test_control_characters_are_written_as_codes() -> None:
    output = started()
    event(log, INFO, "a\nb", ae_title="X\x1b[31m\r\u2028\u202e\ud800")
    assert output.getvalue().endswith("a\\x0ab ae_title=X\\x1b[31m\\x0d\\u2028\\u202e\\ud800\n")


def test_long_values_are_cut_and_foreign_objects_harmless() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    output = started()
    event(log, INFO, "fact", long="x" * 5000, broken=Broken())
    log.info("%s", Broken())
    assert "... (5000 characters)" in output.getvalue() and "broken=<Broken>" in output.getvalue()
    assert len(output.getvalue().splitlines()) == 2


def spellings(secret: str) -> list[str]:
    content = secret.encode()
    pair = base64.b64encode(b"user:" + content).decode()
    return [
        secret, json.dumps(secret), repr(secret), quote(secret, safe=""), quote(secret), quote_plus(secret),
        re.sub("%..", lambda code: code[0].lower(), quote(secret, safe="")),
        base64.b64encode(content).decode(), base64.urlsafe_b64encode(content).decode(),
        pair, base64.b64encode(b"a:" + content + b"!").decode(), base64.b64encode(b"abc" + content).decode(),
        content.hex(), repr(content), f"Basic {pair}", f"https://user:{quote(secret, safe='')}@host/",
    ]  # fmt: skip


SECRETS = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FF, categories=("L", "N", "P", "S", "Zs")),
                  min_size=4, max_size=40).filter(lambda text: not re.fullmatch(r"[*\\x0-9a-f.]*", text))


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SECRETS, st.sampled_from(["text", "json"]))
def test_no_spelling_of_a_secret_gets_out(core: str, form: str) -> None:
    secret = f"Zq7{core}"
    output = started(2, form, (secret,))
    for spelling in spellings(secret):
        output.truncate(0)
        output.seek(0)
        log.info("before %s after", spelling)
        log.debug("in text " + spelling)
        event(log, INFO, "fact", field=spelling, nested={"deep": [spelling]}, wrapped=Secret(secret))
        try:
            raise Refused(f"the platform says {spelling}")
        except Refused:
            log.exception("failed with %s", spelling)
        shown = output.getvalue()
        core_of_spelling = spelling.strip("\"'")
        assert core_of_spelling not in shown and secret not in shown, shown
        assert shown.count("***") >= 5


def test_tokens_are_masked_by_their_surroundings_and_by_value() -> None:
    output = started()
    log.info("Authorization: Basic dXNlcjpodW50ZXIy and Bearer hunter2token")
    log.info('{"access_token": "hunter2token", "expires_in": "3599"}')
    log.info("POST client_id=hunter2id&client_secret=hunter2&grant_type=client_credentials")
    log.info("postgresql://user:hunter2@db/router")
    mask_token("q7Zt3LmN0pRsT8vWxY2aBcD4eFgH")
    log.info("got q7Zt3LmN0pRsT8vWxY2aBcD4eFgH")
    shown = output.getvalue()
    assert not re.search(r"hunter2|dXNlcjpodW50ZXIy|q7Zt", shown)
    assert "grant_type=client_credentials" in shown and "expires_in" in shown and "@db/router" in shown


def test_what_only_looks_like_a_secret_stays() -> None:
    text = "token: renewed; the basic check of the secret passed; 1.2.840.10008.1.1 Study IUID: 1.2.3"
    assert Redactor().mask(text) == text


def test_only_the_last_tokens_are_kept() -> None:
    redactor = Redactor()
    redactor.set_secrets(["configured"])
    for number in range(40):
        redactor.add_token(f"token-{number:04}")
    assert redactor.mask("token-0039 configured") == "*** ***"
    assert redactor.mask("token-0001") == "token-0001"


def test_private_fields_are_masked_by_name() -> None:
    output = started()
    event(log, INFO, "fact", patient_name="Budi", Patient_ID="3171", nik="3171", birth_date="19700101", study="1.2")
    assert output.getvalue().endswith("patient_name=*** Patient_ID=*** nik=*** birth_date=*** study=1.2\n")


def test_errors_have_place_and_cause_but_not_the_data_other_libraries_quote() -> None:
    output = started()
    try:
        try:
            int("Budi 3171")
        except ValueError as cause:
            raise Refused("ImagingStudy refused", status=422) from cause
    except Refused:
        log.exception("Step failed", extra={"fields": {"job": 3}})
    line = output.getvalue()
    assert len(line.splitlines()) == 1 and "Budi" not in line
    assert re.search(r'job=3 error="Refused: ImagingStudy refused at test_logs.py:\d+ test_errors', line)
    assert "caused by ValueError: (text withheld) at test_logs.py:" in line


def test_os_errors_keep_their_reason() -> None:
    output = started()
    try:
        Path("/nonexistent/file").read_bytes()
    except OSError:
        log.exception("Cannot read")
    assert "FileNotFoundError: No such file or directory (errno 2)" in output.getvalue()


def test_other_libraries_are_quiet_and_their_exceptions_bare() -> None:
    output = started(2)
    logging.getLogger("urllib3.connectionpool").debug("GET /Patient?identifier=3171")
    logging.getLogger("uvicorn.access").info("GET /studies?PatientName=Budi")
    logging.getLogger("pynetdicom.dimse").debug("PatientName Budi")
    logging.getLogger("pydicom").warning("Invalid value for VR DA: 'Budi'")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("Invalid value Budi", UserWarning, stacklevel=1)
    assert output.getvalue() == ""
    logging.getLogger("pynetdicom.association").error(ValueError("Budi 3171"))
    assert "ValueError: (text withheld)" in output.getvalue() and "Budi" not in output.getvalue()


def test_errors_at_the_top_of_a_thread_are_logged() -> None:
    output = started(secrets=("hunter2-secret",))

    def fail() -> None:
        raise Refused("said hunter2-secret")

    thread = threading.Thread(target=fail, name="lane-1")
    thread.start()
    thread.join()
    expected = 'CRITICAL [deliver] A thread ended unexpectedly thread=lane-1 error="Refused: said *** at'
    assert expected in output.getvalue()


def test_configuring_again_replaces_the_output() -> None:
    first, second = started(), started()
    event(log, INFO, "fact")
    assert first.getvalue() == "" and second.getvalue().count("fact") == 1


PROGRAM = """
import logging, sys
from interface.logs import configure, event
configure(0, "text", ["hunter2-secret"], "main")
for number in range(3):
    event(logging.getLogger("router"), 20, "fact", number=number)
    sys.stderr.write("alive\\n")
FAIL
"""


def run(shell: str, program: str = PROGRAM.replace("FAIL", "")) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", shell, "bash", sys.executable, "-c", program], cwd=ROOT, text=True,
                          capture_output=True, timeout=60, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
@pytest.mark.parametrize("shell", ['"$@" >&-', 'set -o pipefail; "$@" | true', '"$@" > /dev/full'])
def test_a_closed_or_full_output_ends_nothing(shell: str) -> None:
    done = run(shell)
    assert (done.returncode, done.stderr) == (0, "alive\n" * 3)


def test_lines_go_to_standard_output_and_an_unexpected_end_is_a_line_too() -> None:
    program = PROGRAM.replace("FAIL", "raise SystemError('hunter2-secret')")
    done = run('"$@"', program)
    assert done.returncode == 1
    assert [line.split(" ", 1)[1] for line in done.stdout.splitlines()[:3]] == [
        f"INFO [main] fact number={number}" for number in range(3)]
    assert 'CRITICAL [main] Unexpected end error="SystemError: (text withheld) at <string>:' in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_the_official_phrases_are_spelled_as_people_search_for_them() -> None:
    assert PHRASES["accession_number"].format(accession_number="A1") == "Accession Number: A1"
    assert PHRASES["posted"].format(imaging_study_id="x") == "ImagingStudy POST-ed, id: x"
    assert PHRASES["instance_sent"].format(series_uid="1.2", sop_uid="1.3") == "Sending Instance UID: 1.2/1.3 success"
    assert PHRASES["push_started"] == "DICOM Push started"
    assert not any("Deleting" in phrase or "Clearing" in phrase for phrase in PHRASES.values())
