"""A studio of ModelScope (创空间, SDK Gradio): the page of `ms-ocr app` for everybody, with the embedded model.

Copy this folder into the studio's repository. Visitors read; they name no models and save nothing.
"""

import os

from ms_ocr_handwritten.app.interface import Settings, serve

settings = Settings(
    models=(),  # of your own: "owner/name", or a directory of the studio's repository
    host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),  # the studio's proxy reaches it from outside
    port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
)
serve(settings).wait()
