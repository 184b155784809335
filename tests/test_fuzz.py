"""A part of the attack (`tests/fuzz`) on every run: all small seeds of each kind, and some that were mutated."""

import importlib

import pytest
from fuzz import runner
from fuzz.runner import attack

LARGE = (  # beginnings of the names of seeds that take long to build or to decode: `python -m tests.fuzz` has them
    "large",
    "PNG of 13000",
    "PNG of 8000",
    "PNG of 4000",
    "a 12-megapixel",
    "IPTC of a bomb",
    "ICO of a bomb",
    "ICNS of a bomb",
    "MPO of a bomb",
    "JPEG of 90",
    "JPEG of 20000",
)
CASES = {  # kind: mutated cases, beside the seeds
    "images": 60,
    "weights": 40,
    "texts": 40,
    "onnx_files": 30,
    "servers": 20,
    "lmdbs": 2,
}


@pytest.mark.parametrize("kind", CASES)
def test_the_attack_finds_nothing(kind):
    seeds = [name for name, *_ in importlib.import_module(f"fuzz.{kind}").SEEDS]
    small = [number for number, name in enumerate(seeds) if not name.startswith(LARGE)]
    report = attack(kind, [*small, *range(5000, 5000 + CASES[kind])])
    assert report.cases == len(small) + CASES[kind]
    assert not report.findings, "\n".join(map(str, report.findings))
    assert report.outcomes["read"] >= 1 and report.outcomes["refused"] > 5  # sound files are read, and others are not


def test_the_runner_sees_what_goes_wrong(monkeypatch):
    """Cases of a kind that dies, hangs, raises, calls gs, takes memory, leaves a thread, reads what it should not."""
    monkeypatch.setattr(runner, "MOST_SECONDS", 0.5)
    report = attack("faulty", range(7))
    found = [finding.what.splitlines()[0] for finding in report.findings]
    assert found[:4] == ["the process died of SIGSEGV", "untyped KeyError", "Ghostscript ran", "read, expected refused"]
    assert found[4].endswith("MiB") and found[5].startswith("threads left: ") and found[6].endswith("processor time")
