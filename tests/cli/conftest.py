"""The command line as it is called, with a pipeline that answers at once."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import varshift_cli
from tests import samples
from varshift_cli.cli import main


@dataclass
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """An empty current folder, and no colour settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(varshift_cli.__file__).parents[1]))
    for name in ("NO_COLOR", "FORCE_COLOR", "VARSHIFT_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(capsys):
    """Call varshift with arguments; its exit code and what it wrote."""

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(each) for each in arguments])
        captured = capsys.readouterr()
        return Ended(ended.value.code, captured.out, captured.err)

    return call


@dataclass
class Pipeline:
    """Answers with samples, or with an error, and remembers what it was asked."""

    report: Any = field(default_factory=samples.shifted)
    record: Any = field(default_factory=samples.fix_record)
    error: BaseException | None = None
    requests: list[Any] = field(default_factory=list)
    looks: list[Any] = field(default_factory=list)
    inspection: Any = field(default_factory=samples.inspection)

    def scan_checkpoint(self, request, progress):
        return self._answer(request, progress, self.report)

    def scan_until(self, settled, request, most, progress):
        self.looks.append((settled, most))
        return self._answer(request, progress, self.report)

    def fix_checkpoint(self, request, progress):
        return self._answer(request, progress, self.record)

    def inspect_checkpoint(self, request, progress):
        return self._answer(request, progress, self.inspection)

    def _answer(self, request, progress, answer):
        self.requests.append(request)
        progress.start("measuring", 2)
        progress.advance()
        if self.error is not None:
            raise self.error
        progress.finish()
        return answer


@pytest.fixture
def pipeline(monkeypatch):
    """Stands in for varshift_cli.pipeline."""
    fake = Pipeline()
    commands = ("scan_checkpoint", "scan_until", "fix_checkpoint", "inspect_checkpoint")
    names = {name: getattr(fake, name) for name in commands}
    names["written_files"] = lambda request: {}
    monkeypatch.setitem(sys.modules, "varshift_cli.pipeline", SimpleNamespace(**names))
    return fake
