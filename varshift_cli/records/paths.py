"""Dotted paths: of modules and tensors in a model, and of values in a report."""

from __future__ import annotations


def dotted(owner: str, leaf: object) -> str:
    """``owner.leaf``; the leaf alone where the owner is the model or the report itself."""
    return f"{owner}.{leaf}" if owner else str(leaf)
