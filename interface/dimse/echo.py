"""C-ECHO to another node: whether it answers, in words for people. Source: PS3.4 A.4."""

from __future__ import annotations

from internal.model import Probe

_TIMEOUT_S = 10.0
_VERIFICATION = "1.2.840.10008.1.1"


def echo(host: str, port: int, *, calling: str, called: str, timeout_s: float = _TIMEOUT_S) -> Probe:
    """Open an association and ask; never raises for a node that is away, refuses or misbehaves."""
    from pynetdicom import AE

    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = timeout_s
    entity.add_requested_context(_VERIFICATION)
    association = entity.associate(host, port, ae_title=called)
    if not association.is_established:
        if association.is_rejected:
            return Probe("C-ECHO", False, "the device refuses the association",
                         "enter this router's AE title and address at the device; check the called AE title")
        return Probe("C-ECHO", False, "the device cannot be reached", "check address, port, network and firewall")
    try:
        answer = association.send_c_echo()
    except (ValueError, RuntimeError) as error:
        return Probe("C-ECHO", False, f"the device does not do C-ECHO ({type(error).__name__})")
    finally:
        if association.is_established:
            association.release()
    if "Status" not in answer:
        return Probe("C-ECHO", False, "the connection was lost before the answer", "try again")
    if answer.Status != 0:
        return Probe("C-ECHO", False, f"the device answered 0x{answer.Status:04X}")
    return Probe("C-ECHO", True, "the device answers")
