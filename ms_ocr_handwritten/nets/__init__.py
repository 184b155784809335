"""The network, in pure PyTorch, with the official model's parameter names and shapes."""
