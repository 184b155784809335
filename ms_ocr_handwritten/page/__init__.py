"""From the picture of a page to its text: detector -> polygons -> straightened lines -> reading -> order -> formats."""
