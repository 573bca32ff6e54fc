"""Work that takes longer than a page may: a few threads of the web role, with progress that its owner can look at.

Nothing here is the truth of anything: each piece of the work commits by itself, and after a restart a person asks
again. Imports nothing of ours. Changes when people have to see more of a running task.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from internal.errors import NotFound, RouterError, Transient

log = logging.getLogger("router.web")

_KEPT = 50
_WORKERS = 2
_WAITING = 10


@dataclass(frozen=True, slots=True)
class Line:
    """One result for people."""

    name: str
    ok: bool
    text: str
    advice: str = ""


@dataclass
class Task:
    """One piece of long work; `total` 0 while nobody knows how much it is, `back` the page it was started from."""

    title: str
    owner: str
    back: str
    subject: str = ""
    total: int = 0
    done: int = 0
    failed: int = 0
    ended: bool = False
    stopping: bool = False
    lines: list[Line] = field(default_factory=list)
    task_id: str = field(default_factory=lambda: secrets.token_urlsafe(12))


class Tasks:
    """Runs tasks, two at once, and remembers the last fifty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Task] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None

    def start(self, task: Task, work: Callable[[Task], None]) -> Task:
        """Run `work` in the background; it updates the task. Raises Transient while too many wait."""
        with self._lock:
            if sum(not one.ended for one in self._kept.values()) >= _WORKERS + _WAITING:
                raise Transient("too much is being done at once", code="tasks-busy")
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="task")
            self._kept[task.task_id] = task
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            self._pool.submit(_run, task, work)
        return task

    def get(self, task_id: str, owner: str) -> Task:
        """Return a task of this owner. Raises NotFound."""
        with self._lock:
            task = self._kept.get(task_id)
        if task is None or task.owner != owner:
            raise NotFound("this task is not known any more")
        return task

    def close(self) -> None:
        """Ask what runs to stop at its next boundary; what waits is dropped."""
        with self._lock:
            for task in self._kept.values():
                task.stopping = True
            if self._pool is not None:
                self._pool.shutdown(wait=False, cancel_futures=True)


def _run(task: Task, work: Callable[[Task], None]) -> None:
    """Top of a thread: whatever goes wrong is shown where the progress is looked at."""
    try:
        work(task)
    except RouterError as error:
        task.lines.append(Line(task.subject, False, str(error)))
        task.failed += 1
    except Exception:
        number = secrets.token_hex(4)
        log.exception("task failed: number %s", number)
        task.lines.append(Line(task.subject, False, number))
        task.failed += 1
    finally:
        task.ended = True
