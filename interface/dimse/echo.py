"""C-ECHO to another node: whether it answers, in words for people. Source: PS3.4 A.4."""

from __future__ import annotations

from interface.dimse.negotiation import IMPLICIT_LITTLE, VERIFICATION
from interface.dimse.pdu import ProposedContext
from interface.dimse.requestor import AssociationLost, Node, Requestor
from internal.model import Probe

_TIMEOUT_S = 10.0
_ADVICE = {
    "dimse-connect": ("the device cannot be reached", "check address, port, network and firewall"),
    "dimse-rejected": ("the device refuses the association",
                       "enter this router's AE title and address at the device; check the called AE title"),
}  # fmt: skip
_LOST = ("the connection was lost before the answer", "try again")


def echo(host: str, port: int, *, calling: str, called: str, timeout_s: float = _TIMEOUT_S) -> Probe:
    """Open an association and ask; never raises for a node that is away, refuses or misbehaves."""
    try:
        status = ask(Node(host, port, called, timeout_s), calling)
    except AssociationLost as fault:
        text, advice = _ADVICE.get(fault.code, _LOST)
        return Probe("C-ECHO", False, text, advice)
    if status is None:
        return Probe("C-ECHO", False, "the device does not do C-ECHO")
    if status != 0:
        return Probe("C-ECHO", False, f"the device answered 0x{status:04X}")
    return Probe("C-ECHO", True, "the device answers")


def ask(node: Node, calling: str) -> int | None:
    """Return the status of a C-ECHO on an association of its own, None if the node does not take it.

    Raises AssociationLost.
    """
    requestor = Requestor(node, calling, [ProposedContext(1, VERIFICATION, (IMPLICIT_LITTLE,))])
    try:
        found = requestor.find_context(VERIFICATION, (IMPLICIT_LITTLE,))
        return requestor.echo(found[0], VERIFICATION).status if found else None
    finally:
        requestor.release()
