"""How long ``varshift --help`` and ``check`` take, against a Typer app with two empty commands.

    python tests/benchmarks/bench_cli.py

Runs alternate, so that whatever else the machine does hits all alike; medians are compared, each
with the toy above it. (Typer draws a help of twenty options more slowly than one of two.)
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import samples
from varshift_cli.report import to_json

RUNS = 21
ALLOWED = 1.5

TOY = '''
import typer

app = typer.Typer()


@app.command()
def hello(name: str, times: int = 1) -> None:
    """Say hello."""


@app.command()
def bye(name: str, formal: bool = False) -> None:
    """Say bye."""


app()
'''


def seconds(command: list[str]) -> float:
    # Installed programs have their bytecode; the first, uncounted round writes it.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        toy, report = Path(folder, "toy.py"), Path(folder, "report.json")
        toy.write_text(TOY, encoding="utf-8")
        report.write_text(to_json(samples.shifted()), encoding="utf-8")
        varshift = [sys.executable, "-m", "varshift_cli"]
        toy_app = [sys.executable, str(toy)]
        commands = {
            "toy --help": [*toy_app, "--help"],
            "varshift --help": [*varshift, "--help"],
            "varshift scan --help": [*varshift, "scan", "--help"],
            "toy hello": [*toy_app, "hello", "world"],
            "varshift explain VS101": [*varshift, "explain", "VS101"],
            "varshift check": [*varshift, "check", str(report), "--max-shift", "5"],
            "varshift check --baseline": [
                *varshift,
                "check",
                str(report),
                "--baseline",
                str(report),
            ],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for command in commands.values():
            seconds(command)
        for _ in range(RUNS):
            for name, command in commands.items():
                times[name].append(seconds(command))
    base = 1.0
    for name, each in times.items():
        median = statistics.median(each)
        base = median if name.startswith("toy") else base
        print(f"{name:26}{1000 * median:6.0f} ms{median / base:8.2f} x  (allowed: {ALLOWED} x)")


if __name__ == "__main__":
    main()
