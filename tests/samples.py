"""Sample records shared by the tests of every format and of the command line."""

from dataclasses import replace

from varshift_cli.gate import judge_report
from varshift_cli.records import (
    BuffersRecord,
    CalibrationRecord,
    Case,
    CheckpointRecord,
    Describe,
    DropoutLink,
    DropoutRecord,
    Effect,
    FactorIntervals,
    Factors,
    Finding,
    FindingLevel,
    FixRecord,
    InspectedLayer,
    Inspection,
    Interval,
    LayerRecord,
    LayerRepair,
    LayerRule,
    Level,
    Policy,
    RegimeScores,
    Remedy,
    RepairRecord,
    Report,
    Score,
    Skipped,
    Status,
    Suppression,
    Verdict,
)

BLOCKS = 12
LAST = (2.92, 2.79, 2.64, 2.51, 2.43, 2.38, 2.31, 2.26, 2.17, 2.11, 2.05, 1.34)
"""Shift of each block's last BatchNorm, straight behind a dropout."""
FIRST = (1.01, 1.02, 1.04, 1.06, 1.09, 1.12, 1.15, 1.18, 1.26, 1.21, 1.19, 1.17)
"""Shift of each block's first BatchNorm, which reads the residual stream."""
MIDDLE = (1.01, 1.01, 1.02, 1.02, 1.03, 1.04, 1.06, 1.07, 1.08, 1.09, 1.10, 1.11)


def _layer(name, shift, *, dropout=1.0, inherited=1.0, cause=None, **more):
    factors = Factors(stale=0.995, batch=None, dropout=dropout, inherited=inherited)
    spread = 0.0 if shift == 1 else 0.014 * shift
    around = [Interval(0.97 * each, 1.03 * each) for each in (0.995, dropout, inherited)]
    defaults = {
        "kind": "BatchNorm2d",
        "num_features": 16,
        "eps": 1e-5,
        "call": 1,
        "signed_interval": Interval(0.95 / shift, 1.05 / shift),
        "paper_ratio": 1.02 * shift,
        "median_ratio": 1 / shift,
        "worst_channel": 3,
        "worst_ratio": 0.8 / shift,
        "mean_shift": 0.125,
        "dead_channels": 0,
    }
    return LayerRecord(
        **{
            **defaults,
            "name": name,
            "shift": shift,
            "shift_interval": Interval(max(1.0, shift - 2 * spread), shift + 2 * spread),
            "signed": 0.995 * dropout * inherited,
            "level": Level.of(shift),
            "cause": cause,
            "factors": factors,
            "factor_intervals": FactorIntervals(around[0], None, around[1], around[2]),
            **more,
        }
    )


def _block(index):
    above = (f"body.{index - 1}.bn3",) if index else ()
    first, middle, last = FIRST[index], MIDDLE[index], LAST[index]
    name = f"body.{index}"
    inherited = "inherited" if first >= 1.05 else None
    yield _layer(
        f"{name}.bn1", first, inherited=1 / first, cause=inherited, upstream=above, eps=1e-5
    )
    yield _layer(
        f"{name}.bn2",
        middle,
        inherited=1 / middle,
        cause="inherited" if middle >= 1.05 else None,
        upstream=(f"{name}.bn1",),
    )
    yield _layer(
        f"{name}.bn3",
        last,
        dropout=1 / last,
        cause="dropout",
        dropouts=(DropoutLink(f"{name}.drop", Case.STRAIGHT),),
        location="model.py:32",
        upstream=(f"{name}.bn2",),
    )


def _dropouts():
    return tuple(
        DropoutRecord(f"body.{i}.drop", "dropout", 0.5, "model.py:31", (f"body.{i}.bn3",))
        for i in range(BLOCKS)
    )


def _findings():
    direct = tuple(f"body.{i}.bn3" for i in range(BLOCKS))
    below = (
        *(f"body.{i}.bn1" for i in range(BLOCKS) if FIRST[i] >= 1.05),
        *(f"body.{i}.bn2" for i in range(BLOCKS) if MIDDLE[i] >= 1.05),
        "bn",
    )
    return (
        Finding(
            "VS101",
            FindingLevel.WARNING,
            direct,
            "dropout straight before BatchNorm, 12 layers: with it off, as in eval(), variance is "
            "0.38 to 0.75 of that in training",
            evidence={"dropout": {"geometric_mean": 0.432, "range": [0.342, 0.746]}, "p": 0.5},
        ),
        Finding(
            "VS110",
            FindingLevel.WARNING,
            below,
            f"passed on to {len(below)} layers below; goes when those 12 are repaired",
        ),
    )


def shifted():
    """Twelve blocks with a dropout straight before each last BatchNorm, as in the README."""
    layers = [layer for index in range(BLOCKS) for layer in _block(index)]
    layers.append(_layer("bn", 1.08, dropout=1.83, inherited=0.51, cause="inherited x dropout"))
    recalibrate = Remedy("Recompute the statistics", "varshift fix model.pt --recalibrate")
    return Report(
        varshift_version="0.1.0",
        checkpoint=CheckpointRecord("model.pt", "9f" * 32, "zip", "model", "model.py:build(p=0.5)"),
        calibration=CalibrationRecord(
            "calib.npz  1,000 samples of x, labels y",
            1000,
            64,
            16,
            16,
            1,
            0,
            "cpu",
            "float32",
            "2.13.0",
        ),
        buffers=BuffersRecord(Describe.TRAIN, 1.01, 0.02),
        layers=tuple(layers),
        dropouts=_dropouts(),
        skipped=(),
        findings=_findings(),
        remedies={"VS101": (recalibrate,), "VS110": (recalibrate,)},
        effect=Effect(
            0.094, 0.211, None, RegimeScores(0.92, 0.981, 0.957), RegimeScores(0.412, 0.074, 0.18)
        ),
        verdict=Verdict(Status.NOT_GATED, None, "body.0.bn3", 2.92),
        unknown={"effect.relative_l2": "the outputs are class scores"},
    )


def healthy():
    """The same network without dropout: every layer is fine."""
    off = shifted()
    layers = tuple(
        replace(
            _layer(each.name, 1.0 + index % 3 / 100),
            upstream=each.upstream,
        )
        for index, each in enumerate(off.layers)
    )
    return replace(
        off,
        checkpoint=replace(off.checkpoint, path="twin.pt", arch="model.py:build()"),
        layers=layers,
        dropouts=(),
        findings=(),
        remedies={},
        effect=Effect(0.0, 0.0, None, RegimeScores(0.984, 0.984, 0.984), None),
        verdict=Verdict(Status.NOT_GATED, None, "body.0.bn3", 1.02),
    )


def awkward():
    """Everything that is rare: unknown figures, a layer called twice, unfriendly names."""
    off = shifted()
    first, *others = off.layers[:4]
    name = "stage.[bold]x[/].\x1b[31mred\n\u202e\u4e2d\u6587 \N{PACKAGE}.bn"
    unmeasured = replace(
        first,
        name="aux.bn",
        shift=None,
        shift_interval=None,
        signed=None,
        signed_interval=None,
        level=None,
        factors=Factors(None, None, None, None),
    )
    twice = [replace(others[1], call=call, name="head.bn") for call in (1, 2)]
    layers = (replace(others[1], name=name), unmeasured, *twice, others[2])
    return replace(
        off,
        checkpoint=CheckpointRecord(path="my models/net\x07.pt", container="safetensors"),
        calibration=replace(off.calibration, data=None, batch_size=None, windows=3),
        buffers=BuffersRecord(),
        layers=layers,
        skipped=(Skipped("frozen.bn", "it has no running statistics"),),
        findings=(
            Finding(
                "VS202",
                FindingLevel.ERROR,
                ("aux.bn",),
                "buffers that are not finite: aux.bn",
                evidence={"channels": 3},
            ),
            *off.findings[:1],
            Finding("VS130", FindingLevel.NOTE, (), "the buffers look repaired"),
        ),
        effect=Effect(None, None, 0.123, None, None),
        unknown={"layers.1.shift": "its running statistics are not finite"},
        notes=("the forward calls autograd, so that functional dropout could not be seen",),
        verdict=Verdict(Status.NOT_GATED, None, name, 2.92),
    )


def failing():
    """The shifted network at a gate that it does not pass."""
    return judge_report(shifted(), max_shift=1.25)


def undecided():
    """The shifted network at a gate that lies within the interval of its worst layer."""
    return judge_report(shifted(), max_shift=2.95)


def passing():
    """The healthy network at a gate."""
    return judge_report(healthy(), max_shift=1.25)


def known():
    """A gate with a baseline, a suppression and thresholds by layer."""
    before = shifted()
    worse = replace(
        before.layers[2],
        shift=4.0,
        shift_interval=Interval(3.8, 4.2),
        signed=0.25,
        level=Level.SEVERE,
    )
    policy = Policy(
        layers=(LayerRule("body.11.*", 3.0),),
        max_shift=1.25,
        min_accuracy=0.95,
        suppressions=(Suppression("waits for the next training", "body.1.bn3"),),
    )
    now = replace(before, layers=(*before.layers[:2], worse, *before.layers[3:]))
    return judge_report(now, policy, baseline=before, baseline_source="base.json")


HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a\n::error::injected\r\n| b | c |",
    "``` `code` [x](https://example.org) ![y](z) @octocat #1 $x$ :tada: https://example.org",
    "]]> <!-- --> &amp; &lt; \"quoted\" 'single' {0} {{1}}",
    "\x00\x1b[31mred\x07\u202ertl\u2066\ufffe\udc80",
    "%0A::warning::x, file=y:z ##[error]x ::stop-commands::t",
    "\N{PILE OF POO}\N{WOMAN}\u200d\N{PERSONAL COMPUTER} \u4e2d\u6587 $\\frac{1}{2}$",
    "x" * 500,
    "<" * 500,
    "",
)
"""Names that a checkpoint's author may have thought of."""


def hostile():
    """A report whose every text was written by someone who means harm, at a gate."""
    off = shifted()
    layers = tuple(
        replace(
            off.layers[2],
            name=name,
            kind=name,
            location=f"{name}:3",
            dropouts=(DropoutLink(name, Case.STRAIGHT),),
        )
        for name in HOSTILE
    )
    texts = " ".join(HOSTILE)
    report = replace(
        off,
        varshift_version=texts,
        checkpoint=CheckpointRecord(texts, texts, texts, texts, texts),
        calibration=replace(off.calibration, data=texts, device=texts, method=texts),
        layers=layers,
        dropouts=tuple(DropoutRecord(name, name, 0.5, f"{name}:31", (name,)) for name in HOSTILE),
        skipped=tuple(Skipped(name, name) for name in HOSTILE),
        findings=(
            Finding("VS101", FindingLevel.WARNING, HOSTILE, texts, {texts: texts}, HOSTILE),
            Finding(texts, FindingLevel.ERROR, (), texts),
        ),
        remedies={texts: tuple(Remedy(name, f"varshift fix {name}") for name in HOSTILE)},
        unknown={texts: texts},
        notes=HOSTILE,
    )
    return judge_report(report, max_shift=1.25)


def large(layers=500):
    """As many layers as anyone will have, each with its dropout."""
    off = shifted()
    repeated = [off.layers[index % 36] for index in range(layers)]
    named = tuple(
        replace(
            each,
            name=f"stage.{index}.{each.name}",
            dropouts=tuple(replace(link, name=f"d.{index}") for link in each.dropouts),
            upstream=(f"stage.{index - 1}.{repeated[index - 1].name}",) if index else (),
        )
        for index, each in enumerate(repeated)
    )
    dropouts = tuple(
        DropoutRecord(f"d.{index}", "dropout", 0.5, "model.py:31", (each.name,))
        for index, each in enumerate(named)
        if each.dropouts
    )
    off_names = tuple(each.name for each in named if each.dropouts)
    findings = tuple(replace(each, layers=off_names) for each in off.findings[:1])
    report = replace(off, layers=named, dropouts=dropouts, findings=findings)
    return judge_report(report, max_shift=1.25)


EVERYTHING = {
    "shifted": shifted(),
    "healthy": healthy(),
    "awkward": awkward(),
    "failing": failing(),
    "undecided": undecided(),
    "passing": passing(),
    "known": known(),
    "hostile": hostile(),
    "in-memory": replace(shifted(), checkpoint=CheckpointRecord()),
}
"""A report of every kind, for what must hold of all."""


def fix_record():
    """The repair of the shifted network."""
    off = shifted()
    repairs = tuple(LayerRepair(each.name, each.shift, 1.0) for each in off.layers)
    return FixRecord(
        checkpoint=off.checkpoint,
        output="model.fixed.pt",
        sidecar="model.fixed.varshift",
        output_sha256="3c" * 32,
        changed_buffers=74,
        changed_bytes=4616,
        repair=RepairRecord("recalibrate", repairs, (), 4e-8, 1000, 16, 1, "lockstep", 0.92, 0.981),
        worst_before=2.92,
        worst_layer_before="body.0.bn3",
        worst_after=1.00000004,
        above_before=13,
        above_after=0,
        measured=37,
        scores=(
            Score("accuracy", "calib.npz", 0.92, 0.981, 1000, Interval(0.046, 0.077)),
            Score("loss", "calib.npz", 0.412, 0.074, 1000, Interval(-0.377, -0.299)),
        ),
    )


def inspection():
    """A residual block as varshift inspect sees it, with a layer of every kind left out."""

    def layer(name, where, *dropouts, call=1, kind="BatchNorm2d"):
        links = tuple(DropoutLink(each, case) for each, case in dropouts)
        return InspectedLayer(name, kind, 64, 1e-5, call, f"models/net.py:{where}", links, ())

    drop, functional = "layer1.0.drop", "layer1.0.dropout#1"
    return Inspection(
        varshift_version="0.1.0",
        checkpoint=CheckpointRecord("model.pt", "0" * 64, "zip", "", "models/net.py:Net(p=0.3)"),
        data="calib.npz  8 samples of x drawn at random",
        samples=8,
        device="cpu",
        layers=(
            layer("stem.bn", 21),
            layer("layer1.0.bn1", 34, (drop, Case.THROUGH_WEIGHTS)),
            layer("layer1.0.bn2", 36, (functional, Case.STRAIGHT), (drop, Case.THROUGH_WEIGHTS)),
            layer("shared#1", 38, kind="BatchNormAct2d"),
            layer("shared#2", 39, call=2, kind="BatchNormAct2d"),
        ),
        dropouts=(
            DropoutRecord(
                drop, "dropout", 0.3, "models/net.py:33", ("layer1.0.bn1", "layer1.0.bn2")
            ),
            DropoutRecord(
                functional, "feature_dropout", 0.25, "models/net.py:35", ("layer1.0.bn2",)
            ),
            DropoutRecord("head.drop", "drop_path", None, "models/net.py:41", ()),
        ),
        order=(
            "stem.bn", drop, "layer1.0.bn1", functional, "layer1.0.bn2", "shared#1", "shared#2",
            "head.drop",
        ),
        skipped=(
            Skipped("aux.bn", "no batch reached it"),
            Skipped("norm", "no running statistics: eval() normalises by the batch itself"),
        ),
        unwritten=(
            Skipped("shared", "called 2 times per forward: one buffer cannot serve them all"),
        ),
        always_on=("head.drop",),
        notes=("raw and EMA weights are both there: raw taken; --key ema for the other",),
    )  # fmt: skip
