"""The options, named once. ``None`` means that it was not said, so that the file may say it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class FormatName(StrEnum):
    """What ``--format`` accepts."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"
    GITHUB = "github"
    JUNIT = "junit"
    SARIF = "sarif"
    HTML = "html"


class FixFormatName(StrEnum):
    """What ``--format`` of ``fix`` accepts."""

    TABLE = "table"
    JSON = "json"


class Screen(StrEnum):
    """What ``--format`` accepts where a result is a screen or data, and no report."""

    TABLE = "table"
    JSON = "json"


class Order(StrEnum):
    """What ``--order`` accepts."""

    SHIFT = "shift"
    NETWORK = "network"


_OUTPUT = "Output"
_FLAG = ""  # a flag takes no value, and so shows none

# Hidden, as the usage line says it and the help fills its screen.
Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="checkpoint: .pt .pth .safetensors ...", hidden=True),
]
Arch = Annotated[
    str | None,
    typer.Option(metavar="FILE:NAME", help="what builds it: model.py:Net"),
]
ArchArg = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="for --arch: JSON, (2,2); repeatable")
]
Key = Annotated[str | None, typer.Option(metavar="A.B", help="where in the file the state dict is")]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", metavar=_FLAG, help="let opening the file run code")
]
Data = Annotated[
    str | None,
    typer.Option(metavar="FILE[:NAME]", help="arrays, or data.py:loader"),
]
DataArg = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="for --data: JSON, (2,2); repeatable")
]
TrainData = Annotated[
    str | None, typer.Option(metavar="FILE[:NAME]", help="as in training: do buffers fit it?")
]
Input = Annotated[str | None, typer.Option(metavar="NAME", help="array that the network takes")]
Label = Annotated[str | None, typer.Option(metavar="NAME", help="array of class labels")]
Forward = Annotated[
    str | None, typer.Option(metavar="FILE:NAME", help="f(model, batch) that calls it")
]
Noise = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE:CLASS", help="a layer that is noise; repeatable"),
]
Metric = Annotated[
    str | None,
    typer.Option(metavar="FILE:NAME", help="f(outputs, labels) to be high"),
]
BatchSize = Annotated[int | None, typer.Option(metavar="N", help="samples per batch (64)")]
TrainBatchSize = Annotated[
    int | None, typer.Option(metavar="N", help="of training: tells what it did")
]
Samples = Annotated[int | None, typer.Option(metavar="N", help="samples, drawn by the seed (1024)")]
FewSamples = Annotated[
    int | None, typer.Option("--samples", metavar="N", help="samples, drawn by the seed (8)")
]
SamplesOrAuto = Annotated[
    str | None,
    typer.Option("--samples", metavar="N | auto", help="or auto: till decided (1024)"),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="of everything random (0)")]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="for activations: 2G, 512M, 0.5")]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1 ... (auto)")]

MaxShift = Annotated[
    float | None,
    typer.Option(metavar="X", help="exit 1 if a layer is beyond X", rich_help_panel=_OUTPUT),
]
Baseline = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="earlier JSON report: fail on what got worse",
        rich_help_panel=_OUTPUT,
    ),
]
Format = Annotated[
    FormatName | None,
    typer.Option(
        metavar="NAME",
        help=" ".join(FormatName),
        rich_help_panel=_OUTPUT,
    ),
]
FixFormat = Annotated[
    FixFormatName | None,
    typer.Option(metavar="NAME", help="on stdout: table or json (table)", rich_help_panel=_OUTPUT),
]
ScreenFormat = Annotated[
    Screen | None,
    typer.Option(
        "--format", metavar="NAME", help="on stdout: table or json (table)", rich_help_panel=_OUTPUT
    ),
]
Report = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="write .json .md .xml .sarif .html .txt as well",
        rich_help_panel=_OUTPUT,
    ),
]
FixReport = Annotated[
    list[str] | None,
    typer.Option(
        "--report", metavar="FILE", help="write .json or .txt as well", rich_help_panel=_OUTPUT
    ),
]
All = Annotated[
    bool | None,
    typer.Option("--all", metavar=_FLAG, help="show every layer", rich_help_panel=_OUTPUT),
]
OrderBy = Annotated[
    Order | None,
    typer.Option(
        metavar="NAME", help="rows by shift or by network (shift)", rich_help_panel=_OUTPUT
    ),
]
Channels = Annotated[
    bool | None,
    typer.Option(
        "--channels",
        metavar=_FLAG,
        help="figures of every channel, in JSON",
        rich_help_panel=_OUTPUT,
    ),
]
NoAttribute = Annotated[
    bool | None,
    typer.Option("--no-attribute", metavar=_FLAG, help="skip passes with single dropouts"),
]
Quiet = Annotated[
    bool | None,
    typer.Option(
        "--quiet", "-q", metavar=_FLAG, help="no progress, no remarks", rich_help_panel=_OUTPUT
    ),
]

Recalibrate = Annotated[
    bool,
    typer.Option("--recalibrate", metavar=_FLAG, help="recompute statistics, dropout off"),
]
Correct = Annotated[
    bool,
    typer.Option("--correct", metavar=_FLAG, help="take out what dropout put in"),
]
Auto = Annotated[
    bool,
    # What happens without a method; hidden, as the help fills its screen.
    typer.Option("--auto", metavar=_FLAG, help="better of both, or neither", hidden=True),
]
Revert = Annotated[bool, typer.Option("--revert", metavar=_FLAG, help="put the old buffers back")]
Holdout = Annotated[
    str | None,
    typer.Option(metavar="FILE[:NAME]", help="other data: scores before and after"),
]
IncludeFrozen = Annotated[
    bool, typer.Option("--include-frozen", metavar=_FLAG, help="repair frozen BatchNorm as well")
]
Force = Annotated[
    bool, typer.Option("--force", metavar=_FLAG, help="repair even where it may do harm")
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="where to (model.fixed.pt for model.pt)",
        rich_help_panel=_OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", metavar=_FLAG, help="replace the output file", rich_help_panel=_OUTPUT
    ),
]
InPlace = Annotated[
    bool,
    typer.Option(
        "--in-place", metavar=_FLAG, help="replace the checkpoint itself", rich_help_panel=_OUTPUT
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", metavar=_FLAG, help="do all but write", rich_help_panel=_OUTPUT),
]
