"""The networks, in pure PyTorch, with the official models' parameter names and shapes."""
