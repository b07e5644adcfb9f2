import pytest

from tests.benchmarks.bench_formats import measure

pytest.importorskip("matplotlib", reason="the figures of the HTML report need matplotlib")


def test_five_hundred_layers():
    """Five hundred layers: any format within 1 s of processor time, HTML within 5 s and 5 MB."""
    rows = list(measure(500))

    assert {name for name, *_ in rows} >= {"table", "json", "junit", "sarif", "html"}
    assert [(name, seconds, size) for name, seconds, size, within in rows if not within] == []
