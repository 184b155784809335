"""Readers of external formats of labelled lines and pages, one file each."""
