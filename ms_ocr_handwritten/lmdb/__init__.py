"""LMDBs of lines: open.py -> store.py -> build.py, check.py."""
