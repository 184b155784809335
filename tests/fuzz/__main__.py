"""`python -m tests.fuzz --images 10000 --lmdbs 1000`: cases of each kind that is named; exit code 1 if any finds."""

import argparse
import importlib
import sys

from .runner import attack

KINDS = ("images", "lmdbs", "weights", "texts", "onnx_files", "servers")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    for kind in KINDS:
        parser.add_argument(f"--{kind.replace('_', '-')}", type=int, default=0, metavar="N", help=f"cases of {kind}")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the number of the first case [default: 0]")
    parser.add_argument("--list", metavar="KIND", choices=KINDS, help="print the names of the seeds of a kind")
    options = parser.parse_args()
    if options.list:
        for number, (name, *_) in enumerate(importlib.import_module(f".{options.list}", __package__).SEEDS):
            print(number, name)
    found = False
    for kind in KINDS:
        count = getattr(options, kind)
        if count:
            report = attack(kind, range(options.first, options.first + count))
            print(report, *report.findings, sep="\n  ", flush=True)
            found = found or bool(report.findings)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
