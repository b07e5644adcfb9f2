"""What was said on the command line and what the file says, settled into a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from varshift_cli.cli import output
from varshift_cli.cli.sampling import Draw, read_samples
from varshift_cli.config import Config
from varshift_cli.errors import UsageError
from varshift_cli.report import visible

if TYPE_CHECKING:
    from varshift_cli.records import ScanRequest

ARRAY_SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".pth")
"""Data files that are read, not run."""


@dataclass(frozen=True, slots=True)
class Said:
    """The options of the command line that choose model, data and measurement."""

    arch: str | None = None
    arch_arg: Sequence[str] | None = None
    key: str | None = None
    data: str | None = None
    data_arg: Sequence[str] | None = None
    train_data: str | None = None
    input: str | None = None
    label: str | None = None
    forward: str | None = None
    noise: Sequence[str] | None = None
    metric: str | None = None
    batch_size: int | None = None
    train_batch_size: int | None = None
    samples: int | str | None = None
    seed: int | None = None
    device: str | None = None
    memory: str | None = None
    allow_pickle: bool = False

    def typed(self) -> tuple[str, ...]:
        """The options again as arguments, for the commands to run next, a fix among them.

        ``--samples auto`` belongs to the gate of this scan, and is left out.
        """
        arguments: list[str] = ["--allow-pickle"] if self.allow_pickle else []
        for each in fields(self):
            value = getattr(self, each.name)
            option = f"--{each.name.replace('_', '-')}"
            if each.name in _OF_THIS_SCAN or value is None:
                continue
            if each.name == "samples" and not str(value).isdigit():
                continue
            values = [value] if isinstance(value, str | int) else value
            arguments += [part for one in values for part in (option, str(one))]
        return tuple(arguments)


@dataclass(frozen=True, slots=True)
class Settled:
    """The request, and who named each piece of code that it runs."""

    request: ScanRequest
    code: Mapping[str, str]
    """``model.py:build`` -> ``--arch``, or the settings file."""
    most_samples: int | None = None
    """For ``--samples auto``: no more than this many."""


def settle(
    model: str,
    said: Said,
    config: Config,
    *,
    channels: bool = False,
    growing: bool = False,
    attribute: bool = True,
) -> Settled:
    """Let the command line win over the file.

    Arguments of ``--arch`` and ``--data`` belong to what they are arguments of: those in the file
    hold for the file's own ``arch`` and ``data``, and are replaced name by name.

    Args:
        model: The checkpoint.
        said: The command line.
        config: The file.
        channels: Whether figures of every channel are wanted.
        growing: Whether ``--samples auto`` means anything here; the file's is then passed over.
        attribute: Whether single dropouts are to be told apart.

    Raises:
        UsageError: A number is too small to mean anything.
    """
    from varshift_cli.records import ScanRequest

    draw = _draw(said, config, growing=growing)
    values: dict[str, Any] = {}
    for name in _PLAIN:
        value = getattr(said, name)
        value = getattr(config, name) if value is None else value
        if value is None:
            continue
        if name in _LEAST and value < _LEAST[name]:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} must be at least {_LEAST[name]}, but is {value}")
        if name in _MOST and value > _MOST[name]:
            raise UsageError(f"--{name} must be at most {_MOST[name]}, but is {value}")
        values[name] = value
    if draw is not None:
        values["samples"] = draw.samples
    request = ScanRequest(
        model=model,
        arch_args=_arguments(said.arch, said.arch_arg, config.arch_arg),
        data_args=_arguments(said.data, said.data_arg, config.data_arg),
        allow_pickle=said.allow_pickle,
        noise=tuple(config.noise if said.noise is None else said.noise),
        channels=channels,
        attribute=attribute,
        **values,
    )
    code = _code(request, said, config)
    return Settled(request, code, None if draw is None else draw.most)


def _draw(said: Said, config: Config, *, growing: bool) -> Draw | None:
    given = config.samples if said.samples is None else said.samples
    draw = None if given is None else read_samples(given)
    if draw is None or draw.most is None or growing:
        return draw
    if said.samples is None:
        return None
    raise UsageError(
        "--samples auto draws until a gate is decided, and there is none here",
        hint="give a number of samples; or, to scan, --max-shift X or --baseline FILE",
    )


_MOST = {"seed": 2**63 - 1}
_LEAST = {"batch_size": 1, "seed": 0, "train_batch_size": 2}


def announce(settled: Settled, config: Config, *, quiet: bool) -> None:
    """Say which code will be run and who named it, before it is run.

    What the user typed need not be told to who wants it quiet. What a file named is told all the
    same: it may be a stranger's, and quiet because it says so itself.
    """
    if config.ignored is not None and not quiet:
        output.remark(f"{config.ignored} is ignored, as there is {config.source}")
    told = {
        code: who for code, who in settled.code.items() if not quiet or not who.startswith("--")
    }
    if told:
        named = ", ".join(f"{visible(code)} ({who})" for code, who in told.items())
        output.remark(f"running code: {named}")


def with_holdout(settled: Settled, holdout: str | None, said: str | None) -> Settled:
    """The same with what ``--holdout`` names among the code."""
    if holdout is None or not _is_code("holdout", holdout):
        return settled
    who = "--holdout" if said is not None else "the settings file"
    return replace(settled, code={**settled.code, holdout: who})


_OF_THIS_SCAN = ("allow_pickle", "train_data")
"""Not to be repeated as they are in a command to run next."""

_PLAIN = (
    "arch",
    "key",
    "data",
    "train_data",
    "input",
    "label",
    "forward",
    "metric",
    "batch_size",
    "train_batch_size",
    "seed",
    "device",
    "memory",
)


def _arguments(
    said_owner: str | None, said: Sequence[str] | None, in_file: Sequence[str]
) -> tuple[str, ...]:
    said = () if said is None else said
    if said_owner is not None:
        return tuple(said)
    names = {each.partition("=")[0] for each in said}
    return (*(each for each in in_file if each.partition("=")[0] not in names), *said)


def _is_code(option: str, value: str) -> bool:
    """Whether a value names code; only data may be a file that is read instead."""
    is_file = option in {"data", "train_data", "holdout"} and value.lower().endswith(ARRAY_SUFFIXES)
    return ":" in value and not is_file


def _code(request: ScanRequest, said: Said, config: Config) -> dict[str, str]:
    code = {}
    for name in ("arch", "data", "train_data", "forward", "metric"):
        value = getattr(request, name)
        if value is not None and _is_code(name, value):
            code[value] = (
                f"--{name.replace('_', '-')}"
                if getattr(said, name) is not None
                else str(config.source)
            )
    who = str(config.source) if said.noise is None else "--noise"
    return {**code, **dict.fromkeys(request.noise, who)}
