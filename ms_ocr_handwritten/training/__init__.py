"""Learning: LMDB -> dataset.py -> loss.py -> loop.py -> checkpoints.py. Pure PyTorch; knows nothing of ModelScope."""
