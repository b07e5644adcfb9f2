"""What a model's ``forward`` takes: the names that decide how a batch is spread over it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

_LABELS = ("y", "labels", "targets", "label", "target")


def is_label(name: str) -> bool:
    """Whether a name in a batch means labels."""
    return name in _LABELS


@dataclass(frozen=True, slots=True)
class ForwardSignature:
    """Parameters of ``forward`` in order; unknown where Python cannot tell."""

    names: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    """Positional parameters without a default."""
    any_keyword: bool = False
    known: bool = True

    def __str__(self) -> str:
        """``forward(x, mask)``."""
        return f"forward({', '.join(self.names)}{', **' if self.any_keyword else ''})"


ANY_FORM = ForwardSignature(any_keyword=True, known=False)
"""A forward that may take anything."""


def forward_signature(model: object) -> ForwardSignature:
    """The signature of an eager, scripted, traced or exported model's forward."""
    schema = getattr(getattr(model, "forward", None), "schema", None)
    if schema is not None:
        arguments = [a for a in schema.arguments if a.name != "self"]
        return ForwardSignature(
            names=tuple(a.name for a in arguments),
            required=tuple(
                a.name for a in arguments if not a.has_default_value() and not a.kwarg_only
            ),
        )
    try:
        parameters = inspect.signature(getattr(model, "forward", model)).parameters  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return ANY_FORM
    positional = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    kinds = {p.kind for p in parameters.values()}
    return ForwardSignature(
        names=tuple(name for name, p in parameters.items() if p.kind in named),
        required=tuple(
            name
            for name, p in parameters.items()
            if p.kind in positional and p.default is inspect.Parameter.empty
        ),
        any_keyword=inspect.Parameter.VAR_KEYWORD in kinds,
        # A forward of nothing but *args and **kwargs (DataParallel) tells nothing.
        known=any(p.kind in named for p in parameters.values()),
    )
