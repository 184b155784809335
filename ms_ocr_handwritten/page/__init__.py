"""From a page image to its text: detector -> polygons -> straightened lines -> reading -> order -> formats."""
