"""Which contexts are accepted and in which transfer syntax, as a table."""

from __future__ import annotations

import pytest
from pynetdicom import sop_class

from interface.dimse.negotiation import choose, is_safe_uid, is_storage, rank
from interface.dimse.pdu import ProposedContext

CT = "1.2.840.10008.5.1.4.1.1.2"
T = "1.2.840.10008.1.2"
J = "1.2.840.10008.1.2.4."


@pytest.mark.parametrize(("offered", "chosen"), [
    ((J + "50", J + "70"), J + "70"), ((J + "50", T + ".1"), T + ".1"), ((T, T + ".1"), T + ".1"),
    ((J + "50",), J + "50"),
    ((T + ".2", T), T), ((T + ".2", J + "91"), T + ".2"), ((T + ".1", J + "80", J + "90"), J + "80"),
    ((T + ".1.99", J + "51"), T + ".1.99"), ((J + "94",), None), ((J + "95", J + "204", J + "205"), None),
    ((T + ".8.1",), T + ".8.1"), ((T + ".8.1", T), T),
    ((J + "50", T + ".8.1"), T + ".8.1"), ((J + "50", J + "65"), J + "65"), ((T + ".1.98", T + ".1"), T + ".1"),
    ((T + ".5", T + ".1"), T + ".5"), ((J + "203", T), T), ((J + "201", T + ".1"), J + "201"),
    ((J + "106",), J + "106"), ((), None), (("1.2.3",), None), ((J + "112",), J + "112"), ((T + ".7.1",), None),
])  # fmt: skip
def test_the_choice_among_transfer_syntaxes(offered: tuple[str, ...], chosen: str | None) -> None:
    result = choose(ProposedContext(1, CT, offered), ())
    assert (result.transfer_syntax if result.result == 0 else None) == chosen
    assert result.result in (0, 4)


def test_verification_is_accepted_uncompressed_only() -> None:
    verification = "1.2.840.10008.1.1"
    assert choose(ProposedContext(1, verification, (J + "70", T)), (verification,)).transfer_syntax == T
    assert choose(ProposedContext(1, verification, (J + "70",)), (verification,)).result == 4
    assert choose(ProposedContext(1, verification, (T,)), ()).result == 3


def test_every_storage_class_that_pynetdicom_knows_is_storage_and_no_other_service_is() -> None:
    storage = set(sop_class._STORAGE_CLASSES.values())
    tables = [table for name, table in vars(sop_class).items() if name.startswith("_") and name.endswith("_CLASSES")]
    uids = {uid for table in tables for uid in table.values() if isinstance(uid, str)}
    assert len(uids) > 250
    assert {uid for uid in uids if is_storage(uid)} == storage


def test_private_and_future_classes_are_storage_but_nonsense_is_not() -> None:
    assert is_storage("1.3.12.2.1107.5.9.1") and is_storage("1.2.840.10008.5.1.4.1.1.9999")
    assert not is_storage("") and not is_storage("../../x") and not is_storage("1.2." + "3" * 64)


def test_safe_uids() -> None:
    assert is_safe_uid("1.02.3") and is_safe_uid("1" * 64)
    for uid in ("", ".", "1..2", "1.", ".1", "1.2\n", "1.a", "1" * 65, "١.٢"):
        assert not is_safe_uid(uid), uid


def test_rank_has_no_place_for_references_to_pixels() -> None:
    assert rank(J + "94") is None and rank(J + "70") == 0 and rank(J + "50") == 4
