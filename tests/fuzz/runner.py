"""Hands cases to workers and keeps what they found."""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parent.parent
MOST_SECONDS = 5.0  # of processor time, so that what else the machine does is not counted
MOST_WAIT = 60.0  # s for an answer, after which the worker is killed
MOST_MIB = 512.0  # above the start of the case
FRESH_AFTER = 500  # cases, so that what one case leaves behind cannot hide for long


@dataclass(frozen=True)
class Finding:
    kind: str
    number: int
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.number} ({self.name}): {self.what}"


@dataclass
class Report:
    """Of one kind: `outcomes` counts how the cases ended; seconds and MiB are those of the worst case."""

    kind: str
    cases: int = 0
    outcomes: Counter = field(default_factory=Counter)
    seconds: float = 0.0
    mib: float = 0.0
    slowest: str = ""
    largest: str = ""
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.most_common())
        return (
            f"{self.kind}: {self.cases} cases ({ends}), {len(self.findings)} findings, slowest {self.seconds:.2f} s "
            f"({self.slowest}), largest {self.mib:.0f} MiB ({self.largest})"
        )


class Worker:
    """A child process; `run` gives its answer, or how it ended."""

    def __init__(self) -> None:
        paths = [str(TESTS), str(TESTS.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "NO_PROXY": "127.0.0.1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self.done = 0

    def run(self, kind: str, number: int) -> dict | str:
        self.done += 1
        try:
            self.process.stdin.write(f"{kind} {number}\n".encode("ascii"))
            self.process.stdin.flush()
        except OSError:
            return self._end()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(MOST_WAIT):
                self.close()
                return f"no end within {MOST_WAIT:g} s"
        line = self.process.stdout.readline()
        return json.loads(line) if line else self._end()

    def _end(self) -> str:
        code = self.process.wait()
        self.close()
        return f"the process died of {signal.Signals(-code).name}" if code < 0 else f"the process ended with {code}"

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def attack(kind: str, numbers: Iterable[int]) -> Report:
    """Run cases of one kind, one after the other."""
    report, worker = Report(kind), Worker()
    try:
        for number in numbers:
            answer = worker.run(kind, number)
            report.cases += 1
            _note(report, number, answer)
            if isinstance(answer, str) or worker.done >= FRESH_AFTER:
                worker.close()
                worker = Worker()
    finally:
        worker.close()
    return report


def _note(report: Report, number: int, answer: dict | str) -> None:
    if isinstance(answer, str):
        report.outcomes[answer] += 1
        report.findings.append(Finding(report.kind, number, "?", answer))
        return
    report.outcomes[answer["outcome"]] += 1
    if answer["cpu"] > report.seconds:
        report.seconds, report.slowest = answer["cpu"], f"{number} {answer['name']}"
    if answer["mib"] > report.mib:
        report.mib, report.largest = answer["mib"], f"{number} {answer['name']}"
    wrong = []
    if answer["outcome"] not in ("read", "refused"):
        wrong.append(f"{answer['outcome']}\n{answer['trace']}")
    elif answer["expected"] not in (None, answer["outcome"]):
        wrong.append(f"{answer['outcome']}, expected {answer['expected']}")
    if answer["cpu"] > MOST_SECONDS:
        wrong.append(f"{answer['cpu']:.1f} s of processor time")
    if answer["mib"] > MOST_MIB:
        wrong.append(f"{answer['mib']:.0f} MiB")
    report.findings += [Finding(report.kind, number, answer["name"], what) for what in wrong]
