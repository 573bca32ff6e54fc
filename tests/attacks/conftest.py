"""The attacked web role is the one of the contract tests."""

from __future__ import annotations

from tests.contract.http.conftest import doors, open_doors, own_doors, running_doors

__all__ = ["doors", "open_doors", "own_doors", "running_doors"]
