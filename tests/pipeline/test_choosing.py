"""Which repair fix takes: by labels on unseen samples, else by what the buffers describe."""

from __future__ import annotations

import copy
import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import samples
from tests.benchmarks import repair_table
from tests.nets import ConvNet, Mlp, batches_of, warmed_up
from varshift_cli import FixDeclinedError, recalibrate
from varshift_cli.diagnosis.staleness import Staleness
from varshift_cli.instrument import find_batch_norms
from varshift_cli.measurement.folds import cut_folds
from varshift_cli.measurement.samples import Samples, identify
from varshift_cli.pipeline import deciding, fix_checkpoint, fixing
from varshift_cli.pipeline.certainty import Answers, Certainty, answers_of
from varshift_cli.pipeline.choice import choose_by_buffers, choose_by_labels, nothing_needed
from varshift_cli.pipeline.crossfit import cross_fit
from varshift_cli.pipeline.scoring import Judge
from varshift_cli.records import (
    BuffersRecord,
    Describe,
    Finding,
    FindingLevel,
    FixRequest,
    Interval,
    ScanRequest,
    Score,
    SilentProgress,
)
from varshift_cli.remedies import Workload

SAME = Certainty(Answers(0.5, 2.3), Answers(0.4, 2.3), Answers(0.4, 2.3))
"""Outputs that tell nothing."""


@pytest.mark.parametrize(
    ("stale", "certainty", "method", "words"),
    [
        (Staleness(0.02, 0.9), SAME, "recalibrate", "describe this data with dropout on"),
        (Staleness(0.10, 4.9), SAME, "recalibrate", "4.9 times what momentum allows"),
        (Staleness(0.20, 5.0), SAME, "correct", "do not look like the training data"),
        (Staleness(0.41, 9.0), SAME, None, "other data than in training"),
        (
            Staleness(0.15, 6.0),
            Certainty(Answers(0.5, 2.0), Answers(0.1, 2.3), Answers(0.4, 2.1)),
            "recalibrate",
            "after pruning or averaging",
        ),
        (
            Staleness(0.15, 12.0),
            Certainty(Answers(0.5, 2.0), Answers(0.1, 2.3), Answers(0.4, 2.1)),
            None,
            "only labels can tell",
        ),
        (
            Staleness(0.15, 6.0),
            Certainty(Answers(0.5, 2.0), Answers(0.1, 2.1), Answers(0.4, 2.2)),
            "correct",
            "do not look like the training data",
        ),
        (
            Staleness(0.15, 6.0),
            Certainty(Answers(0.5, 2.3), Answers(0.9, 2.3), Answers(0.4, 2.3)),
            None,
            "trained with these buffers",
        ),
        (
            Staleness(0.3, 3.0),
            Certainty(Answers(0.5, 2.3), Answers(0.2, 2.2), Answers(0.4, 2.3)),
            None,
            "loses classes",
        ),
        (Staleness(0.2, 5.0), Certainty(None, None), "correct", "no labels"),
        (None, SAME, None, "no layer could be compared"),
    ],
)
def test_the_rule_without_labels(
    stale: Staleness | None, certainty: Certainty, method: str | None, words: str
) -> None:
    """Momentum, distance and certainty decide, as measured by the table of repairs."""
    choice = choose_by_buffers(samples.shifted(), stale, certainty)
    assert choice.method == method
    assert words in choice.reason


@pytest.mark.parametrize(("code", "method"), [("VS201", None), ("VS202", "recalibrate")])
def test_broken_buffers_without_labels(code: str, method: str | None) -> None:
    """Never updated: nobody can tell. Not finite: only new statistics can help."""
    report = samples.shifted()
    found = Finding(code, FindingLevel.ERROR, (report.layers[0].name,), "broken")
    report = replace(report, findings=(found,))
    assert nothing_needed(report) is None
    assert choose_by_buffers(report, Staleness(0.02, 1.0), SAME).method == method


def test_a_layer_that_no_batch_reaches_decides_nothing() -> None:
    """An auxiliary head that was never used says nothing about the layers that were."""
    found = Finding("VS201", FindingLevel.ERROR, ("auxiliary.bn",), "never updated")
    report = replace(samples.shifted(), findings=(found,))
    assert choose_by_buffers(report, Staleness(0.02, 1.0), SAME).method == "recalibrate"
    assert nothing_needed(replace(samples.healthy(), findings=(found,))) is not None


def test_nothing_needed() -> None:
    """Clean buffers, or every layer fine: nothing to repair; a shifted net needs a choice."""
    assert nothing_needed(samples.shifted()) is None
    fine = nothing_needed(samples.healthy())
    assert fine is not None
    assert not fine.needed
    assert "all 37 layers are fine" in fine.reason
    clean = nothing_needed(
        replace(samples.shifted(), buffers=BuffersRecord(Describe.CLEAN, 0.01, 0.02))
    )
    assert clean is not None
    assert "dropout off already (slope 0.01 +- 0.02)" in clean.reason


def scores(labels: Tensor, share: float, *, sure: float = 5.0) -> Tensor:
    """Outputs that are right for the first ``share`` of the samples."""
    rows = len(labels)
    right = torch.arange(rows) < share * rows
    predicted = torch.where(right, labels, (labels + 1) % 4)
    return sure * torch.eye(4)[predicted]


@pytest.mark.parametrize(
    ("recalibrated", "corrected", "method"),
    [(0.9, 0.8, "recalibrate"), (0.8, 0.9, "correct"), (0.6, 0.65, None), (0.71, 0.5, None)],
)
def test_labels_decide_beyond_noise(
    recalibrated: float, corrected: float, method: str | None
) -> None:
    """The better repair, if it beats 70 % on 200 samples beyond noise; else none, in numbers."""
    labels = torch.arange(200) % 4
    outputs = {"recalibrate": scores(labels, recalibrated), "correct": scores(labels, corrected)}
    choice = choose_by_labels(
        Judge(labels),
        scores(labels, 0.7),
        outputs,
        "held-out fifths",
        subject="",
        by_buffers=lambda: replace(CHOSEN, method=None),
    )
    assert choice.method == method
    assert "as it is 70.0 %" in choice.reason


@pytest.mark.parametrize(("doubtful", "method"), [(False, "recalibrate"), (True, None)])
def test_a_lower_loss_alone_does_not_overrule_buffers_that_training_may_have_used(
    doubtful: bool, method: str | None
) -> None:
    """Never updated buffers are right if training left them so: then accuracy itself must rise."""
    labels = torch.arange(200) % 4
    choice = choose_by_labels(
        Judge(labels),
        scores(labels, 0.7),
        {"recalibrate": scores(labels, 0.7, sure=2.0)},
        "held-out fifths",
        subject="",
        by_buffers=lambda: replace(CHOSEN, method=None),
        doubtful=doubtful,
    )
    assert choice.method == method


@pytest.mark.parametrize("favourite", ["recalibrate", "correct"])
def test_between_repairs_alike_the_buffers_decide(favourite: str) -> None:
    """Two repairs that no figure tells apart: the one that the buffers speak for."""
    labels = torch.arange(200) % 4
    same = scores(labels, 0.9)
    choice = choose_by_labels(
        Judge(labels),
        scores(labels, 0.7),
        {"recalibrate": same, "correct": same.clone()},
        "held-out fifths",
        subject="",
        by_buffers=lambda: replace(CHOSEN, method=favourite),
    )
    assert choice.method == favourite


@pytest.mark.parametrize(("share", "method"), [(0.71, "recalibrate"), (0.6, None)])
def test_what_labels_do_not_speak_against_is_left_to_the_buffers(
    share: float, method: str | None
) -> None:
    """Within noise of 70 % the buffers' favourite is taken; beyond noise below it is vetoed."""
    labels = torch.arange(200) % 4
    worse = scores(labels, 0.5)
    choice = choose_by_labels(
        Judge(labels),
        scores(labels, 0.7),
        {"recalibrate": scores(labels, share), "correct": worse},
        "held-out fifths",
        subject="",
        by_buffers=lambda: CHOSEN,
    )
    assert choice.method == method


CHOSEN = choose_by_buffers(samples.shifted(), Staleness(0.02, 0.9), SAME)


def test_answers_by_hand() -> None:
    """Entropy and spread of scores, and of probabilities, against their definition."""
    probabilities = torch.tensor([[0.5, 0.5], [0.25, 0.75]], dtype=torch.float64)
    entropy = -(0.5 * np.log(0.5) * 2 + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / 2
    spread = -(0.375 * np.log(0.375) + 0.625 * np.log(0.625))
    for outputs in (probabilities, probabilities.log() + 3):
        found = answers_of(outputs)
        assert found is not None
        assert found.entropy == pytest.approx(entropy)
        assert found.spread == pytest.approx(spread)
    assert answers_of(torch.zeros(3, 1)) is None
    assert answers_of(torch.full((3, 2), float("nan"))) is None


def test_folds_hold_every_sample_once_and_do_not_depend_on_batches() -> None:
    """Five parts of about equal size, the same samples whatever their order or batches."""
    torch.manual_seed(0)
    x = torch.randn(103, 4)

    def parts(data: Tensor, size: int) -> list[set[float]]:
        batches = batches_of(data, size)
        folds = cut_folds(batches, identify(batches), regroup=True)
        found = []
        for fold in folds:
            test = torch.cat([batch.args[0] for batch in fold.test])
            train = torch.cat([batch.args[0] for batch in fold.train])
            assert torch.equal(data[fold.rows], test)
            assert len(test) + len(train) == 103
            found.append(set(test[:, 0].tolist()))
        return found

    first = parts(x, 16)
    assert sorted(map(len, first)) == [20, 20, 21, 21, 21]
    assert first == parts(x[torch.randperm(103)], 40)


def test_batches_that_cannot_be_cut_are_held_out_whole() -> None:
    """A batch that is one unit goes to one part; a single one cannot be judged."""
    batches = batches_of(torch.randn(12, 4), 4)
    folds = cut_folds(batches, Samples.anonymous(3), regroup=False)
    assert [len(fold.test) for fold in folds] == [1, 1, 1]
    assert cut_folds(batches[:1], Samples.anonymous(1), regroup=False) == ()
    whole = cut_folds(batches, identify(batches), regroup=True, whole=True)
    assert [[batch.size for batch in fold.test] for fold in whole] == [[4], [4], [4]]


def test_cross_fitting_by_hand() -> None:
    """Each sample's outputs come from a net recalibrated on the other parts, as done plainly."""
    torch.manual_seed(1)
    x = torch.randn(120, 12)
    model = warmed_up(Mlp(), x)
    batches = batches_of(x, 32)
    folds = cut_folds(batches, identify(batches), regroup=True)
    work = Workload(model, find_batch_norms(model), batches, (), SilentProgress())
    kept = copy.deepcopy(model.state_dict())
    found = cross_fit(work, folds, ("recalibrate", "correct"), 120)
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[name])
    for fold in folds:
        plain = copy.deepcopy(model)
        rest = torch.ones(120, dtype=torch.bool)
        rest[fold.rows] = False
        recalibrate(plain, x[rest])
        with torch.no_grad():
            expected = plain.eval()(x[fold.rows])
        torch.testing.assert_close(found["recalibrate"][fold.rows], expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found["correct"], found["recalibrate"], atol=1e-3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code.py").write_text("from tests.nets import ConvNet, Mlp\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fix(arch: str, method: str, model: str = "m.pt") -> object:
    request = ScanRequest(model, arch=f"code.py:{arch}", data="calib.npz")
    return fix_checkpoint(FixRequest(request, method=method, overwrite=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("arch", ["Mlp", "ConvNet"])
@pytest.mark.parametrize("method", ["recalibrate", "correct"])
def test_a_repaired_net_has_nothing_to_repair(
    folder: Path, seed: int, arch: str, method: str
) -> None:
    """Twenty repaired nets: fix on its own output writes nothing, with its sidecar or without."""
    torch.manual_seed(seed)
    x = torch.randn(400, 12) if arch == "Mlp" else torch.randn(400, 3, 5, 5)
    model = warmed_up(Mlp() if arch == "Mlp" else ConvNet(), x, steps=60)
    torch.save(model.state_dict(), "m.pt")
    np.savez("calib.npz", x=x.numpy())
    assert fix(arch, method).status == "written"  # type: ignore[attr-defined]
    names = {path.name for path in folder.iterdir()}
    for _ in range(2):
        for again in ("auto", method):
            record = fix(arch, again, "m.fixed.pt")
            assert (record.status, record.output) == ("nothing_to_repair", None)  # type: ignore[attr-defined]
        assert {path.name for path in folder.iterdir()} == names
        (folder / "m.fixed.varshift").unlink(missing_ok=True)
        names.discard("m.fixed.varshift")


def test_the_batch_size_of_training_is_what_momentum_is_judged_by(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--train-batch-size tells what else is taken from the batches of the data."""
    torch.manual_seed(0)
    x = torch.randn(400, 12)
    torch.save(warmed_up(Mlp(), x).state_dict(), "m.pt")
    np.savez("calib.npz", x=x.numpy())
    sizes = []

    def staleness(*_args: object, size: int, **_more: object) -> Staleness:
        sizes.append(size)
        return Staleness(0.02, 1.0)

    monkeypatch.setattr(deciding, "staleness", staleness)
    for given in (None, 16):
        scan = ScanRequest("m.pt", arch="code.py:Mlp", data="calib.npz", train_batch_size=given)
        fix_checkpoint(FixRequest(scan, method="auto", dry_run=True))

    assert sizes == [64, 16]


def test_harm_is_rejected_in_numbers(folder: Path) -> None:
    """Trained with frozen BN: recalibration falls beyond noise, exit 5; --force writes it."""
    net, x, y = frozen_net()
    torch.save(net.state_dict(), "m.pt")
    np.savez("calib.npz", x=x.numpy(), y=y.numpy())
    with pytest.raises(FixDeclinedError, match=r"accuracy on held-out fifths falls from") as ended:
        fix("Mlp", "recalibrate")
    assert ended.value.exit_code == 5
    assert not Path("m.fixed.pt").exists()
    request = ScanRequest("m.pt", arch="code.py:Mlp", data="calib.npz")
    record = fix_checkpoint(FixRequest(request, force=True))
    assert record.status == "written"
    assert record.scores[0].after < record.scores[0].before


def frozen_net() -> tuple[nn.Module, Tensor, Tensor]:
    """A net that learnt with BN in eval mode, by buffers that fit other data."""
    torch.manual_seed(2)
    x = torch.randn(400, 12)
    y = (x[:, :4] + 0.2 * torch.randn(400, 4)).argmax(1)
    net = warmed_up(Mlp(p=0.1), 3 * x.flip(1).abs())
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eval()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval(), x, y


def test_auto_on_a_corner_of_the_table(tmp_path: Path) -> None:
    """Plain, pruned and frozen nets of one seed: auto is never below as-is beyond two errors."""
    kinds = ["plain", "pruned", "frozen BN"]
    for name, kind, found in repair_table.cells([0], tmp_path, ["MLP, BN1d"], kinds):
        for auto in repair_table.RULES:
            loss, error = repair_table.gap(found, auto, "as is")
            assert loss >= -2 * error, (name, kind, auto)
        shown = {
            option: statistics.mean(o.hits[option].mean().item() for o in found)
            for option in repair_table.OPTIONS
        }
        assert shown["as is"] > 0.8
        if kind == "frozen BN":
            assert shown["recalibrate"] < shown["as is"] - 0.1


def test_targets_that_cannot_be_scored_are_not_passed_over(tmp_path: Path) -> None:
    """Float targets without --metric: nothing is written, and the message asks for the metric."""
    torch.manual_seed(0)
    x = torch.randn(256, 12)
    net = warmed_up(Mlp(), x)
    torch.save(net, tmp_path / "net.pt")
    arrays = {"x": x.numpy(), "y": torch.randn(256, 4).numpy()}
    np.savez(tmp_path / "calib.npz", **arrays)
    request = ScanRequest(
        str(tmp_path / "net.pt"), data=str(tmp_path / "calib.npz"), allow_pickle=True
    )

    with pytest.raises(FixDeclinedError, match="give --metric"):
        fix_checkpoint(FixRequest(request, method="auto"))

    assert {each.name for each in tmp_path.iterdir()} == {"net.pt", "calib.npz"}


def test_where_accuracy_is_a_matter_of_chance_the_lower_loss_wins() -> None:
    """Two images of 200 more, by a repair that is much less sure of all the others."""
    labels = torch.arange(200) % 4
    choice = choose_by_labels(
        Judge(labels),
        scores(labels, 0.7),
        {
            "recalibrate": scores(labels, 0.96, sure=3.0),
            "correct": scores(labels, 0.97, sure=0.5),
        },
        "held-out fifths",
        subject="",
        by_buffers=lambda: replace(CHOSEN, method=None),
    )
    assert choice.method == "recalibrate"
    assert "of the two recalibrate has the lower loss beyond noise" in choice.reason


@pytest.mark.parametrize(("held_out", "told"), [(None, False), (object(), True)])
def test_what_falls_on_its_own_samples_is_no_repair(held_out: object, told: bool) -> None:
    """Other data may be too few to tell harm that the repair's own samples tell already."""
    labels = torch.arange(400) % 4
    evidence = SimpleNamespace(
        held_out=held_out,
        judge=Judge(labels),
        measured=SimpleNamespace(outputs={"eval": scores(labels, 0.9)}),
    )
    found = deciding._harm_in_sample(evidence, "recalibrate", scores(labels, 0.8))
    assert (found is not None and "recalibrate does harm" in found) is told
    assert deciding._harm_in_sample(evidence, "recalibrate", scores(labels, 0.9)) is None


def test_buffers_that_training_may_have_used_are_kept_unless_labels_speak() -> None:
    """Never updated: a repair asked for by name needs more than that it does no harm."""
    report = samples.shifted()
    found = Finding("VS201", FindingLevel.ERROR, (report.layers[0].name,), "never updated")
    score = Score("accuracy", "held-out fifths", 0.9, 0.91, 400, Interval(-0.01, 0.03))
    fixing._refuse_leap(SimpleNamespace(before=report), "correct", score)
    with pytest.raises(FixDeclinedError, match=r"never updated.*by no more than noise"):
        fixing._refuse_leap(
            SimpleNamespace(before=replace(report, findings=(found,))), "correct", score
        )
