"""A ModelScope studio (创空间, SDK Gradio): the page of `ms-ocr app` for the public, with the embedded model.

Copy this folder into the studio's repository. Visitors can read, but not choose models or save anything.
"""

import os

from ms_ocr_handwritten.app.interface import Settings, serve

settings = Settings(
    models=(),  # your own: "owner/name", or a directory in the studio's repository
    host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),  # the studio's proxy reaches it from outside
    port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
)
serve(settings).wait()
