"""What a model reads and where it fails, as one HTML page; and training curves, as a figure."""
