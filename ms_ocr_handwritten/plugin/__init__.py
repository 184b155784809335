"""The ModelScope adapters, registered under upstream's names. Nothing else in the package imports modelscope."""
