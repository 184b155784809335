"""Training: LMDB -> dataset.py -> loss.py -> loop.py -> checkpoints.py. Pure PyTorch, independent of ModelScope."""
