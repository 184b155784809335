"""Read with a fine-tuned model from an epoch of your choice.

python reload.py line.png [--epoch 3] [--work-dir ./work_dir]
"""

import argparse
import shutil

from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks

import ms_ocr_handwritten  # noqa: F401  (registers)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("image", help="a URL or a path")
parser.add_argument("--epoch", type=int, default=3)
parser.add_argument("--work-dir", default="./work_dir")
arguments = parser.parse_args()

shutil.copy(f"{arguments.work_dir}/epoch_{arguments.epoch}.pth", f"{arguments.work_dir}/output/pytorch_model.pt")
ocr_recognition = pipeline(Tasks.ocr_recognition, model=f"{arguments.work_dir}/output")
result = ocr_recognition(arguments.image)
print(result["text"][0])
