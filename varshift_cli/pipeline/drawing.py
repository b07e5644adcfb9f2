"""Draw batches from whatever a training script has, without a trace in its random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from varshift_cli.errors import UsageError
from varshift_cli.instrument.snapshot import preserved_random_state
from varshift_cli.loading import adapt_batches
from varshift_cli.measurement import check_batches
from varshift_cli.records import Batch


def draw_batches(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    samples: int | None = None,
    as_given: bool = False,
) -> tuple[tuple[Batch, ...], tuple[str, ...]]:
    """The batches, drawn once and kept; :func:`scan` takes them as they are.

    A loader that shuffles draws from the global random state; that is given back, so that a
    training goes on as it would have without the scan.

    Args:
        model: Its ``forward`` tells how dict batches are spread.
        batches: A DataLoader, or any iterable of batches: tensors whose first dimension counts
            samples, (input, label) tuples, or dicts of keyword arguments.
        samples: No more than this many; all by default.
        as_given: Whether a function of the caller's gets each batch whole, in a form of its own.

    Returns:
        The batches, and what should be said about them.

    Raises:
        UsageError: ``model`` is no module, or ``batches`` nothing that yields batches.
        DataError: Fewer than two samples, non-finite input, or batches of no known form.
    """
    check_model(model)
    check_iterable(batches)
    with preserved_random_state():
        drawn, notes = adapt_batches(
            batches, model, what="batches", samples=samples, as_given=as_given
        )
    check_batches(drawn)
    return drawn, notes


def check_model(model: object) -> None:
    """Refuse what is taken for a network and is none.

    Raises:
        UsageError: Says what it is, and what to pass.
    """
    if isinstance(model, nn.Module):
        return
    hint = "Pass the network itself."
    if isinstance(model, str | PathLike):
        hint = (
            "In Python load the file into its network first; the command line opens files: "
            f"varshift scan {model}"
        )
    elif isinstance(model, Mapping):
        hint = "Weights alone cannot run: build the network, and call its load_state_dict."
    elif isinstance(model, type):
        hint = f"Make one: model = {model.__name__}(...)"
    raise UsageError(f"model is {_called(model)}, not a torch.nn.Module", hint=hint)


def check_iterable(batches: object) -> None:
    """Refuse what yields no batches, or letters, keys or single samples in their place.

    Raises:
        UsageError: Says what it is, and what to pass.
    """
    hint = (
        "A batch is a tensor whose first dimension counts samples, a tuple (input, label), or a "
        "dict of tensors."
    )
    if isinstance(batches, str | PathLike):
        hint = (
            "In Python pass the data themselves; the command line opens files: "
            f"varshift scan MODEL --data {batches}"
        )
    elif isinstance(batches, Mapping):
        hint = "A dict is one batch: put it into a list, [batch]."
    elif isinstance(batches, Dataset) and not hasattr(batches, "__iter__"):
        hint = (
            "It yields single samples: DataLoader(dataset, batch_size=64); or batch_size=None "
            "where each of its items is a batch."
        )
    elif isinstance(batches, type | nn.Module) or not _is_iterable(batches):
        is_function = callable(batches) and not isinstance(batches, nn.Module)
        hint = "Call it, and pass what it returns." if is_function else hint
    else:
        return
    expected = "expected a DataLoader, or another iterable of batches"
    raise UsageError(f"batches is {_called(batches)}; {expected}", hint=hint)


def _is_iterable(batches: object) -> bool:
    # iter() would start the workers of a loader.
    return isinstance(batches, Batch) or any(
        hasattr(batches, name) for name in ("__iter__", "__getitem__")
    )


def _called(value: object) -> str:
    if value is None or isinstance(value, str | int | float):
        return repr(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
