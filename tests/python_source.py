"""Our own source as a syntax tree, for the tests that read it."""

from __future__ import annotations

import ast
import gc
from pathlib import Path


def tree_of(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file.

    Without a collection in between: a finalizer that parses something itself makes CPython 3.11 take its own count of
    nested calls for wrong (SystemError "AST constructor recursion depth mismatch", CPython issue 106905).
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    finally:
        if was_on:
            gc.enable()
