"""The ModelScope edge: adapters that answer to ModelScope's names. Nothing else in the package imports modelscope."""
