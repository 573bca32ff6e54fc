"""What every role relies on at start: who may look into the data folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from interface.roles import open_spool, open_store
from internal.config import Settings, load
from internal.errors import StorageFailed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _settings(folder: Path) -> Settings:
    return load(None, {}, {"router.data_dir": str(folder)}, require_platform=False)


@pytest.mark.parametrize("made_before", [False, True])
def test_nobody_else_may_look_into_the_data_folder(tmp_path: Path, made_before: bool) -> None:
    folder = tmp_path / "data"
    if made_before:
        folder.mkdir(mode=0o755)
    open_spool(_settings(folder))
    assert (_mode(folder), _mode(folder / "spool")) == (0o700, 0o700)


def test_the_index_is_private_in_a_folder_that_is_not(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    (tmp_path / "other").write_text("")
    tmp_path.chmod(0o755)
    open_spool(settings)
    store = open_store(settings)
    store.migrate()
    assert {path.name: _mode(path) for path in tmp_path.glob("index.db*")} == {
        "index.db": 0o600, "index.db-wal": 0o600, "index.db-shm": 0o600}
    store.close()
    assert _mode(tmp_path) == 0o755, "a folder that holds other things is not ours to close"


def test_a_lock_that_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    spool = open_spool(_settings(tmp_path / "data"))
    (tmp_path / "data" / "spool" / "run" / "deliver.lock").mkdir()
    with pytest.raises(StorageFailed, match="must belong to the user"):
        spool.lock("deliver", 0)
