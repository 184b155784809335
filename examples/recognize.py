"""Read one line with ModelScope's pipeline: from a URL or a path, and from an OpenCV array.

python recognize.py line.png [--model DIRECTORY_OR_ID]
"""

import argparse

import cv2
import numpy as np
from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks

import ms_ocr_handwritten

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image", help="a URL or a path")
parser.add_argument(
    "--model",
    help="a model directory, or 'damo/cv_convnextTiny_ocr-recognition-handwritten_damo'; "
    "without it the model that is embedded in the package",
)
arguments = parser.parse_args()

ocr_recognition = pipeline(Tasks.ocr_recognition, model=arguments.model or ms_ocr_handwritten.default_model_dir())

# a URL or a path
result = ocr_recognition(arguments.image)
print(result["text"][0], f"{result['score'][0]:.3f}")
for character, score, x0, x1 in result["chars"][0]:
    print(f"  {character}  {score:.3f}  from {x0:.0f} to {x1:.0f} px")

# an array, BGR as in OpenCV
if not arguments.image.startswith("http"):
    img = cv2.imdecode(np.fromfile(arguments.image, np.uint8), cv2.IMREAD_COLOR)
    assert ocr_recognition(img)["text"] == result["text"]
