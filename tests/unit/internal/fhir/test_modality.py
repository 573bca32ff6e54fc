"""The modality table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internal.fhir.modality import ACQUISITION, DERIVED, REPLACED, Modality, Origin, find_modality, order_codes

CT = "1.2.840.10008.5.1.4.1.1.2"


@pytest.mark.parametrize(("said", "sop_class", "expected"), [
    ("CT", CT, Modality("CT", Origin.DEVICE)),
    (" dx ", "", Modality("DX", Origin.DEVICE)),
    ("DR", CT, Modality("DX", Origin.REPLACED)),
    ("KO", "", Modality("KO", Origin.DEVICE)),
    ("", CT, Modality("CT", Origin.SOP_CLASS)),
    ("RONTGEN", "1.2.840.10008.5.1.4.1.1.1", Modality("CR", Origin.SOP_CLASS)),
    ("", "1.2.840.10008.5.1.4.1.1.7", Modality("OT", Origin.UNKNOWN)),
    ("", "1.2.840.10008.5.1.4.1.1.88.59", Modality("KO", Origin.SOP_CLASS)),
    ("CT\\MR", "1.3.6.1", Modality("OT", Origin.UNKNOWN)),
])
def test_table(said: str, sop_class: str, expected: Modality) -> None:
    assert find_modality(said, sop_class) == expected


@given(st.text(max_size=20), st.text(max_size=40))
def test_total(said: str, sop_class: str) -> None:
    assert find_modality(said, sop_class).code in ACQUISITION | DERIVED


def test_tables_do_not_overlap() -> None:
    assert not ACQUISITION & DERIVED
    assert not (ACQUISITION | DERIVED) & set(REPLACED)
    assert set(REPLACED.values()) <= ACQUISITION


def test_acquisition_comes_first() -> None:
    assert order_codes(["SR", "CT", "KO", "CT", "MR"]) == ["CT", "MR", "SR", "KO"]
