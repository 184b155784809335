"""Export a model to ONNX and read a line with only onnxruntime, as in a program without PyTorch.

    python onnx_inference.py MODEL_DIRECTORY line.png

Needs `pip install ms_ocr_handwritten[onnx]`. Lines wider than 25:1 are squeezed here, as in upstream;
`Recognizer.from_pretrained(directory, backend="onnxruntime")` reads the same file without squeezing.
"""

import argparse

import cv2
import numpy as np
import onnxruntime
from modelscope.exporters import Exporter
from modelscope.models import Model

import ms_ocr_handwritten  # noqa: F401  (registers)


def keepratio_resize(img):
    cur_ratio = img.shape[1] / float(img.shape[0])
    width = 804 if cur_ratio > 804 / 32 else int(32 * cur_ratio)
    mask = np.zeros([32, 804, 3], np.uint8)
    mask[:, :width, :] = cv2.resize(img, (width, 32))
    return mask


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="a model directory; model.onnx is written into it")
parser.add_argument("image", help="a path")
arguments = parser.parse_args()

model = Model.from_pretrained(arguments.model)
onnx_file = Exporter.from_model(model).export_onnx(output_dir=arguments.model)["model"]

image = cv2.imdecode(np.fromfile(arguments.image, np.uint8), cv2.IMREAD_COLOR)
image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
image = keepratio_resize(image).astype(np.float32) / 255.0
chunks = np.stack([image[:, left : left + 300] for left in (0, 252, 504)]).transpose(0, 3, 1, 2)  # (3, 3, 32, 300)

session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
(logits,) = session.run([session.get_outputs()[0].name], {session.get_inputs()[0].name: chunks})  # (1, 201, classes)

with open(f"{arguments.model}/vocab.txt", encoding="utf-8") as file:
    labels = {id: line.strip("\n") for id, line in enumerate(file, start=2)}  # 0 is the blank, 1 is unused
text, last = "", 0
for id in logits[0].argmax(-1).tolist():
    if id not in (last, 0):
        text += labels.get(id, "")
    last = id
print(text)
