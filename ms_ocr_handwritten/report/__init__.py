"""What a model reads and where it fails, as one HTML page; and the curves of trainings, as a picture."""
