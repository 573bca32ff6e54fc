"""The DIMSE services beside C-STORE: a handler per command field.

Imports messages. C-FIND, C-MOVE, C-GET, N-CREATE and N-SET add a handler here and
their SOP classes to `Services.abstract_syntaxes`. Changes when the receiver offers another service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from interface.dimse import messages
from interface.dimse.messages import Command, build_response
from interface.dimse.pdu import ContextResult
from interface.dimse.records import AssociationRecord


@dataclass(frozen=True, slots=True)
class Request:
    """A whole message with a bounded data set (not for C-STORE).

    `read_data_set` returns it while the handler runs; raises RouterError if the disk did not take it.
    """

    command: Command
    context: ContextResult
    read_data_set: Callable[[], bytes]


class Session(Protocol):
    """What a handler may do with the association its request came on."""

    record: AssociationRecord

    def send(self, context_id: int, command: bytes, data_set: bytes | None = None) -> None:
        """Send one message; raises PeerClosed."""

    def expect_report(self, entry_id: str, context: ContextResult) -> None:
        """Send the answer to the request kept as `entry_id` on this association, if it comes while that is open."""


Handler = Callable[[Session, Request], None]
Roles = tuple[bool, bool]  # whether the peer may be SCU, and SCP


@dataclass(frozen=True, slots=True)
class Services:
    """The handlers by command field, and the abstract syntaxes accepted for them: of anybody, or of some AE titles.

    Those of an AE title come with the roles that it may have (SCU, SCP); everybody else is SCU.
    """

    handlers: Mapping[int, Handler]
    abstract_syntaxes: frozenset[str]
    by_caller: Mapping[str, Mapping[str, Roles]] = field(default_factory=dict)

    def reads_data_set(self, command_field: int) -> bool:
        """Return whether anybody wants the data set that comes with a command."""
        return command_field in self.handlers and command_field != messages.C_ECHO_RQ

    def offered_to(self, calling_aet: str) -> frozenset[str]:
        """Return what a caller may propose beside storage."""
        return self.abstract_syntaxes | self.roles_of(calling_aet).keys()

    def roles_of(self, calling_aet: str) -> Mapping[str, Roles]:
        """Return what a caller may be, by abstract syntax, where that is not SCU alone."""
        return self.by_caller.get(calling_aet, {})


def echo(session: Session, request: Request) -> None:
    """Answer a C-ECHO. Source: PS3.7 9.1.5."""
    session.send(request.context.context_id, build_response(request.command, messages.SUCCESS))


def unrecognized(session: Session, request: Request) -> None:
    """Answer a command that no service here understands. Source: PS3.7 C.5."""
    session.send(
        request.context.context_id,
        build_response(request.command, messages.UNRECOGNIZED_OPERATION, "this operation is not offered here"),
    )
