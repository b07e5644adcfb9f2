"""``--data``: an array file, or code of the user's that returns the data; drawn once, repeatably.

Arrays and map-style datasets are sampled at random by the seed: sorted data (all cats, then all
dogs) would fake a shift. Loaders and iterables come as they are, at their own batch size.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from varshift_cli.errors import DataError, UsageError, VarshiftError
from varshift_cli.loading.arguments import (
    check_arguments,
    foreign_to,
    parse_arguments,
    show_call,
)
from varshift_cli.loading.arrays import Arrays, is_array_file, pick_arrays, read_arrays
from varshift_cli.loading.batches import (
    BatchAdapter,
    check_enough,
    common_size,
    first_not_finite,
    limited,
)
from varshift_cli.loading.converting import as_tensor, is_array
from varshift_cli.loading.importing import Target, import_target, told, users_code
from varshift_cli.records import Batch

_XY = ("x", "y")


@dataclass(frozen=True, slots=True)
class LoadedData:
    """The calibration batches, drawn once for all passes."""

    batches: tuple[Batch, ...]
    description: str
    """``calib.npz  1,000 samples of x, labels y``."""
    samples: int
    batch_size: int | None
    """``None`` where batches differ in size, a smaller last one aside."""
    notes: tuple[str, ...] = ()
    regroupable: bool = False
    """Whether batches were cut here, from arrays or a dataset: other cuts are then as good."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How much to draw, and how."""

    samples: int
    batch_size: int
    seed: int
    whole: bool = False
    """Only full batches, for a model that takes no other size."""

    @classmethod
    def of(cls, samples: int, batch_size: int, seed: int, fixed_batch: int | None) -> Draw:
        """As asked for, or in batches of the only size that the model takes."""
        if fixed_batch is None:
            return cls(samples, batch_size, seed)
        return cls(max(samples, fixed_batch), fixed_batch, seed, whole=True)

    def rows(self, available: int) -> list[int]:
        """Indices drawn without replacement; all in their own order when that is all there is."""
        if self.whole:
            count = min(self.samples, available) // self.batch_size * self.batch_size
            if count < available:
                return replace(self, samples=count, whole=False).rows(available)
        if self.samples >= available:
            return list(range(available))
        generator = torch.Generator().manual_seed(self.seed)
        drawn: list[int] = torch.randperm(available, generator=generator)[: self.samples].tolist()
        return drawn

    def slices(self, rows: Sequence[int]) -> Iterator[Sequence[int]]:
        """Rows in batches; a last one of a single row joins the batch before it.

        Alone it would give a BN over (N, C) one value per channel, which has no variance.
        """
        starts = list(range(0, len(rows), self.batch_size))
        if len(starts) > 1 and self.batch_size > 1 and len(rows) - starts[-1] == 1:
            starts.pop()
        ends = [*starts[1:], len(rows)] if starts else []
        for start, end in zip(starts, ends, strict=True):
            yield rows[start:end]


def load_data(
    spec: str,
    *,
    data_args: Sequence[str],
    input: str | None,  # noqa: A002 - named like its option
    label: str | None,
    samples: int,
    batch_size: int,
    seed: int,
    model: object,
    search_dirs: Sequence[Path],
    as_given: bool = False,
    fixed_batch: int | None = None,
    option: str = "--data",
    shared: bool = False,
) -> LoadedData:
    """Draw the calibration batches.

    Args:
        spec: An array file, ``file.py:name`` or ``package.module:name``.
        data_args: ``name=value`` for the callable.
        input: Name of the input array, where the usual names do not tell.
        label: Name of the label array, likewise.
        samples: How many at most.
        batch_size: Samples per batch, for arrays and datasets.
        seed: Decides which samples are drawn, and all randomness of the user's code.
        model: Its ``forward`` tells how dict batches are spread.
        search_dirs: Folders to find files and modules in.
        as_given: Whether a function of the user's calls the model (``--forward``): it gets each
            batch as the loader gives it, or the input array's rows.
        fixed_batch: The only batch size that the model takes; arrays and datasets are cut to it,
            and what does not fill a batch is left out.
        option: What names these data.
        shared: Whether the same arguments and names are for other data too, so that what means
            nothing here may be for those.

    Raises:
        DataError: If the data are missing, empty, damaged or not finite.
        UsageError: If the options contradict each other.
    """
    if samples < 1 or batch_size < 1:
        raise UsageError("--samples and --batch-size must be at least 1")
    draw = Draw.of(samples, batch_size, seed, fixed_batch)
    adapter = BatchAdapter.of(model, spec, as_given=as_given)
    if draw.whole:
        adapter.notes.append(
            f"the model was recorded for batches of {draw.batch_size}, and takes no others"
        )
    if is_array_file(spec):
        if data_args and not shared:
            raise UsageError(f"--data-arg has no use for the array file {spec}")
        arrays = read_arrays(_find(spec, search_dirs), input, label)
        return _from_arrays(arrays, draw, model, adapter)
    if (input is not None or label is not None) and not shared:
        raise UsageError("--input and --label name arrays in a file; --data is code here")
    if Path(spec).exists():
        raise DataError(
            f"{spec} is of no kind that is read as data",
            hint="Read are .npz, .npy, .safetensors and .pt files; for all else name a function "
            f"that returns a Dataset, a DataLoader or batches: {option} file.py:name",
        )
    target = Target.parse(spec, option)
    given = parse_arguments(data_args, "--data-arg", search_dirs)
    made, call = _call(target, given, search_dirs, seed, adapter.notes if shared else None)
    adapter.what = call
    return _from_object(made, draw, model, adapter, search_dirs)


def _find(spec: str, search_dirs: Sequence[Path]) -> Path:
    for folder in (Path(), *search_dirs):
        if (folder / spec).is_file():
            return folder / spec
    return Path(spec)


def _call(
    target: Target,
    given: dict[str, Any],
    search_dirs: Sequence[Path],
    seed: int,
    notes: list[str] | None,
) -> tuple[Any, str]:
    """What the callable returns; anything that is not callable is taken as the data itself.

    Where there are notes, arguments that it does not take are left out, and noted.
    """
    made = import_target(target, search_dirs, DataError)
    if not _is_factory(made):
        if given and notes is None:
            raise UsageError(f"{target.label} is data already, --data-arg has no use")
        return made, target.label
    if notes is not None:
        foreign = foreign_to(made, given)
        if foreign:
            notes.append(f"{target.label} takes no --data-arg {', '.join(foreign)}: left out")
        given = {name: value for name, value in given.items() if name not in foreign}
    check_arguments(made, given, target.label, "--data-arg")
    call = show_call(target.label, given)
    with users_code(call, DataError, search_dirs, seed=seed):
        return made(**given), call


def _is_factory(made: Any) -> bool:
    return inspect.isclass(made) or (
        callable(made) and not isinstance(made, Dataset | DataLoader) and not is_array(made)
    )


def _from_object(
    made: Any, draw: Draw, model: object, adapter: BatchAdapter, search_dirs: Sequence[Path]
) -> LoadedData:
    call = adapter.what
    if _looks_like_arrays(made):
        found = _as_mapping(made)
        return _from_arrays(pick_arrays(found, call, None, None), draw, model, adapter)
    with users_code(f"drawing from {call}", DataError, search_dirs, seed=draw.seed):
        if isinstance(made, IterableDataset):
            batches = tuple(limited(adapter.stream(_chunks(made, draw, call)), draw.samples))
            drawn = "the first {} samples"
        elif _is_map_style(made):
            batches = tuple(adapter.stream(_collated(made, draw, call)))
            drawn = "{} samples" if draw.samples >= len(made) else "{} samples drawn at random"
        elif isinstance(made, Iterable):
            batches = tuple(limited(adapter.stream(made), draw.samples))
            drawn = "the first {} samples"
        else:
            raise DataError(
                f"{call} returned a {type(made).__name__}",
                hint="Expected a Dataset, a DataLoader, or an iterable of batches.",
            )
    count = sum(batch.size for batch in batches)
    check_enough(count, call)
    labels = ", with labels" if all(b.labels is not None for b in batches) else ""
    description = f"{call}  {drawn.format(f'{count:,}')}{labels}"
    return LoadedData(
        batches,
        description,
        count,
        common_size(batches),
        tuple(adapter.notes),
        regroupable=_is_map_style(made) and not draw.whole,
    )


def _looks_like_arrays(made: Any) -> bool:
    """A tensor, a tuple (x, y) or a dict of whole arrays; a list is a list of batches."""
    if is_array(made):
        return True
    if isinstance(made, tuple):
        return 0 < len(made) <= len(_XY) and all(map(is_array, made))
    return isinstance(made, Mapping) and bool(made) and all(map(is_array, made.values()))


def _as_mapping(made: Any) -> dict[str, torch.Tensor]:
    if isinstance(made, Mapping):
        return {str(name): as_tensor(item) for name, item in made.items()}
    items = made if isinstance(made, tuple) else (made,)
    return {name: as_tensor(item) for name, item in zip(_XY, items, strict=False)}


def _is_map_style(made: Any) -> bool:
    if isinstance(made, DataLoader | list | tuple | str | bytes | Mapping):
        return False
    return hasattr(made, "__getitem__") and hasattr(made, "__len__")


def _collated(dataset: Any, draw: Draw, call: str) -> Iterator[Any]:
    """Batches of a map-style dataset, sampled by the seed."""
    drawn = draw.rows(len(dataset))
    _check_filled(drawn, draw, call)
    for rows in draw.slices(drawn):
        yield _collate([_item(dataset, row, call) for row in rows], call)


def _check_filled(rows: Sequence[int], draw: Draw, where: str) -> None:
    if draw.whole and not rows:
        raise DataError(
            f"{where} does not fill one batch of {draw.batch_size}, the only size that the model "
            "was recorded for",
            hint="Give more samples, or export the model with a dynamic batch dimension.",
        )


def _item(dataset: Any, row: int, call: str) -> Any:
    try:
        return dataset[row]
    except VarshiftError:
        raise
    except Exception as problem:
        raise DataError(f"sample {row} of {call} raised: {told(problem)}") from problem


def _chunks(dataset: Iterable[Any], draw: Draw, call: str) -> Iterator[Any]:
    """Batches of a stream of single samples."""
    held: list[Any] = []
    for item in dataset:
        held.append(item)
        if len(held) == draw.batch_size:
            yield _collate(held, call)
            held = []
    if held:
        yield _collate(held, call)


def _collate(items: list[Any], call: str) -> Any:
    try:
        return default_collate(items)
    except (TypeError, RuntimeError, ValueError, KeyError) as problem:
        text = " ".join(str(problem).split())
        raise DataError(
            f"samples of {call} cannot be stacked into a batch: {text[:200]}",
            hint="Return a DataLoader with a collate_fn, or samples of one shape.",
        ) from problem


def _from_arrays(arrays: Arrays, draw: Draw, model: object, adapter: BatchAdapter) -> LoadedData:
    where = adapter.what
    available = len(arrays.inputs)
    check_enough(min(available, draw.samples), where)
    rows = draw.rows(available)
    _check_filled(rows, draw, where)
    inputs = _single(arrays.inputs, arrays.input_name, model, adapter.notes)
    labels = None if arrays.labels is None else _single(arrays.labels, None, None, [])
    if inputs.dtype == torch.uint8:
        adapter.notes.append(
            f"{arrays.input_name} is uint8 and is given to the model as it is, not scaled"
        )
    bad = _first_bad_row(inputs, rows)
    if bad is not None:
        raise DataError(
            f"{where}: sample {bad} of {arrays.input_name!r} holds NaN or infinity",
            hint="Statistics would be NaN everywhere; drop or repair that sample.",
        )
    batches = tuple(
        Batch((inputs[list(part)],), {}, None if labels is None else labels[list(part)], len(part))
        for part in draw.slices(rows)
    )
    drawn = " drawn at random" if len(rows) < available else ""
    label = f", labels {arrays.label_name}" if arrays.label_name else ""
    description = f"{where}  {len(rows):,} samples of {arrays.input_name}{drawn}{label}"
    return LoadedData(
        batches,
        description,
        len(rows),
        common_size(batches),
        tuple(adapter.notes),
        regroupable=not draw.whole,
    )


def _first_bad_row(inputs: torch.Tensor, rows: Sequence[int]) -> int | None:
    """The lowest index among the drawn rows that holds NaN or infinity."""
    ordered = sorted(rows)
    for start in range(0, len(ordered), 1024):
        part = ordered[start : start + 1024]
        at = first_not_finite(inputs[part])
        if at is not None:
            return part[at]
    return None


def _single(
    tensor: torch.Tensor, name: str | None, model: object, notes: list[str]
) -> torch.Tensor:
    """Floating numbers in the dtype that the model computes in: float32 where nobody can tell."""
    if not tensor.dtype.is_floating_point:
        return tensor
    wanted = _computes_in(model) or torch.float32
    if tensor.dtype == wanted:
        return tensor
    if name is not None:
        short = [str(dtype).removeprefix("torch.") for dtype in (tensor.dtype, wanted)]
        notes.append(f"{name} is {short[0]} and was cast to {short[1]}")
    return tensor.to(wanted)


def _computes_in(model: object) -> torch.dtype | None:
    """The dtype of the model's first floating parameter."""
    parameters: Callable[[], Iterable[torch.Tensor]] | None = getattr(model, "parameters", None)
    if parameters is None:
        return None
    return next((p.dtype for p in parameters() if p.dtype.is_floating_point), None)
