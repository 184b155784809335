"""Readers of foreign formats of labelled lines and pages, one file each."""
