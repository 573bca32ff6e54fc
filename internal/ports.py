"""The seams between the router and the outside: what a destination gets, and what it must offer.

Layer 0, imports model and states. Changes when destinations need a new verb of the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Protocol, runtime_checkable

from internal.identity import Person
from internal.model import Header, Intent, Inventory, Item, ItemState, Job, Probe
from internal.states import Outcome


class Clock(Protocol):
    """Time, replaceable in tests."""

    def now_ms(self) -> int:
        """Return UTC epoch milliseconds."""

    def monotonic_s(self) -> float:
        """Return seconds that never go back, for deadlines."""


class Frozen(Protocol):
    """The bytes of one item as they leave: equal at every attempt (a recipe, not a copy)."""

    @property
    def item(self) -> Item:
        """Return the item, as it was committed."""

    @property
    def header(self) -> Header:
        """Return the index fields of these bytes: what the other side will call them.

        A rewrite may change any of them, UIDs included; `item.instance.header` is what was received.
        """

    @property
    def sha256(self) -> str:
        """Return the SHA-256 (hex) of these bytes."""

    @property
    def size_bytes(self) -> int:
        """Return their length."""

    def open(self) -> BinaryIO:
        """Return a reader over exactly `size_bytes` bytes, a complete Part 10 file (PS3.10 7); the caller closes it."""


Following = Callable[[], Sequence[Item]]


class Work(Protocol):
    """What a step may do with the one job whose lease it holds; every write is committed on return.

    Every method raises LeaseLost once the lease has gone to somebody else; the step lets it pass.
    """

    job: Job
    clock: Clock

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the other side has told us about this study in this environment."""

    def record_facts(self, **facts: Any) -> None:
        """Merge `facts` (JSON values; None removes a key) and commit, before the next request leaves."""

    def inventory(self) -> Inventory:
        """Return every instance ever accepted for the study and part, purged ones included."""

    def patients(self) -> list[Person]:
        """Return the distinct patients that the images of the whole study name, other accessions included."""

    def ordered_patients(self, accession_number: str) -> list[Person]:
        """Return the patients of the orders that reached us directly under this accession number."""

    def is_same_patient(self, sides: str) -> bool:
        """Return whether a person has decided that these sides (identity.fingerprint) are one patient."""

    def siblings(self) -> list[Mapping[str, Any]]:
        """Return the facts of this study's other jobs of the same kind here: those under its other accessions."""

    def items(self, states: Iterable[ItemState], limit: int, after: int = 0) -> list[Item]:
        """Return up to `limit` items of this job and environment in one of `states`, in sending order.

        Only those beyond the item id `after`, which a walk over all of them passes on.
        """

    def count_items(self) -> dict[ItemState, int]:
        """Return how many items of this job and environment are in each state."""

    def rehearse(self) -> None:
        """Raise what `freeze` would because of a rule, for every item that was never frozen; nothing is written.

        It reads headers only, and nothing at all where no rule changes what goes to this destination.
        """

    def freeze(self, items: Sequence[Item], following: Following | None = None) -> list[Frozen]:
        """Fix the bytes of `items`, check them against the index, and commit them as SENT in one transaction.

        What `following` returns is likely to be frozen next: its bytes are checked meanwhile, nothing is written of it.
        An item that was sent before gets the same bytes again. Raises BytesMissing or BytesDamaged.
        """

    def take_back(self, items: Sequence[Item]) -> None:
        """Undo the freeze that returned these items: their requests surely were not carried out and are no attempts.

        Also after the lease is lost; an item that was frozen or answered again since stays as it is.
        """

    def settle_items(self, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
        """Write down the other side's answers (status, text, time) in one transaction."""

    def commitment_answer(self, transaction_uid: str) -> Mapping[str, int] | None:
        """Return what a node said to our request for storage commitment: a Failure Reason by SOP Instance UID."""

    def file_commitment_answer(self, transaction_uid: str, reasons: Mapping[str, int]) -> None:
        """Commit an answer that came on the very association of the request."""

    def revise_receipts(self, answers: Sequence[tuple[Item, ItemState, Mapping[str, Any]]]) -> None:
        """Replace receipts of STORED items by what the other side says when asked to stand by them (commitment)."""

    def open_intent(self, verb: str, deadline_s: float) -> Intent:
        """Commit that a non-repeatable request `verb` is about to leave and will be over in `deadline_s` seconds.

        Raises LeaseLost when the lease would not outlive the deadline and cannot be renewed.
        """

    def unanswered_intent(self, verb: str) -> Intent | None:
        """Return the newest intent `verb` whose reply was never read, if any."""

    def close_intent(self, intent: Intent, answer: Mapping[str, Any]) -> None:
        """Commit the answer to `intent`."""

    def renew(self) -> None:
        """Extend the lease; call it while bytes move."""

    def should_yield(self) -> bool:
        """Return True once the step has used its 30 s or the process is stopping: return More at the next boundary."""

    def event(self, code: str, text: str, **fields: Any) -> None:
        """Add one line for people to the study's timeline; no code ever decides by reading it."""

    def alert(self, code: str, text: str) -> None:
        """Show `text` with the lane, and in the study's timeline, until a person opens the lane again.

        Repeating it costs nothing: the same code is told once.
        """


class Destination(Protocol):
    """A place where studies go; one lane each. The contract suite runs over every implementation."""

    name: str
    kind: str
    #: One job for each accession of a study, or one for the whole study.
    by_accession: bool

    @property
    def environment(self) -> str:
        """Return what facts and receipts are keyed by, such as base URL and organization."""

    def step(self, work: Work) -> Outcome:
        """Bring the job as far as it goes now and say what comes next.

        May raise Transient, UnknownOutcome, CredentialsRefused, Refused, BytesMissing, BytesDamaged or LeaseLost;
        the worker maps each to an outcome. Any other exception counts as Later, never as a loss.
        """

    def may_poll(self) -> bool:
        """Return whether a job that waits for something to appear there may ask for it now."""

    def report(self) -> Mapping[str, Any]:
        """Return figures for the status file (JSON), such as how far requests are slowed down.

        "push_ms": a histogram of the answered requests that carried images (interface.histogram), where there is one.
        """

    def probe(self) -> Iterable[Probe]:
        """Try what a delivery would need, changing nothing there; for `check`."""


@runtime_checkable
class Throttled(Protocol):
    """A destination whose bandwidth can be limited while it works."""

    def limit_bandwidth(self, bytes_per_s: int) -> None:
        """Use at most so many bytes per second from now on; 0: no limit."""
