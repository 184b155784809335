"""A browser page for trying a model and correcting its readings: `ms-ocr app`.

reading.py (images to displayable results) -> drawing.py (results as HTML) -> interface.py (Gradio, only used here)
corrections.py (corrected readings, into an LMDB); texts.py (Chinese and English)
"""
