"""`python -m ms_ocr_handwritten.cli ...` is the same as `ms-ocr ...`; torchrun needs this form."""

from . import main

if __name__ == "__main__":  # worker processes import this file again
    main(prog_name="ms-ocr")
