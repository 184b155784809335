"""The attack that this package withstands: damaged and malicious input of each kind, one case at a time, in a child.

    seeds      crafted by hand, each a kind of attack or a sound file; cases 0 to len(SEEDS) - 1 of a kind
    mutators   further cases are seeds that were changed, by a random generator that the case's number begins
    worker     a child process that runs cases and measures what each one took
    faulty     a kind whose cases do what none may: the runner's own test
    runner     hands cases to workers; a death, a silence or an untyped error is a finding

`python -m tests.fuzz --images 10000 --lmdbs 1000` runs as many of each kind as it says and prints what it found.
"""
