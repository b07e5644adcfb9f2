"""How long each format takes for 500 layers, and how large it is.

    python tests/benchmarks/bench_formats.py [layers]

The first rendering of HTML pays for importing matplotlib, and is the one that counts.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import samples
from varshift_cli.report import FORMATS, from_json, render_table, to_json

SECONDS = {"html": 5.0}
MEGABYTES = {"html": 5.0}
OTHERWISE = 1.0
"""Seconds that any other format may take."""


def seconds_of(work):
    """Processor time of this process, so that a busy machine changes little; and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def measure(layers=500):
    """Rows of a name, seconds, characters, and whether both are within bounds."""
    report = samples.large(layers)
    text = to_json(report)
    works = {name: lambda each=each: each.render(report) for name, each in FORMATS.items()}
    works["table --all"] = lambda: render_table(report, all_layers=True, order="network")
    works["reading JSON"] = lambda: from_json(text) and ""
    for name, work in works.items():
        seconds, result = seconds_of(work)
        size = len(result.encode())
        within = seconds < SECONDS.get(name, OTHERWISE)
        yield name, seconds, size, within and size < 1e6 * MEGABYTES.get(name, float("inf"))


def main() -> None:
    layers = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    print(f"{layers} layers")
    rows = list(measure(layers))
    for name, seconds, size, within in rows:
        print(f"{name:14}{seconds:7.2f} s{size / 1e6:8.2f} MB   {'' if within else 'TOO MUCH'}")
    if not all(within for *_, within in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
