"""`python -m ms_ocr_handwritten.cli ...` is `ms-ocr ...`; torchrun starts it so."""

from . import main

if __name__ == "__main__":  # worker processes import this file again
    main(prog_name="ms-ocr")
