"""The page on which a model is tried and its readings are corrected: `ms-ocr app`.

reading.py (pictures to what is shown of them) -> drawing.py (that as HTML) -> interface.py (Gradio, the only edge)
corrections.py (readings that were corrected, into an LMDB); texts.py (Chinese and English)
"""
