"""The model card, word for word, on the real hub: what its five snippets do with this package installed.

    python card.py [--work-dir ./card]

The first run downloads the official model (77 MB) and the data set of the card into ModelScope's cache; then it trains
for one epoch on that data set, and reads with and exports the result. Without a network, run it again: it does the
same from the cache. `docs/hub.md` shows its output.
"""

import argparse
import shutil

import cv2
from modelscope.exporters import Exporter
from modelscope.hub.snapshot_download import snapshot_download
from modelscope.metainfo import Trainers
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer
from modelscope.utils.constant import DownloadMode, Tasks

import ms_ocr_handwritten  # noqa: F401  (registers)

MODEL_ID = "damo/cv_convnextTiny_ocr-recognition-handwritten_damo"
IMAGE = "http://duguang-labelling.oss-cn-shanghai.aliyuncs.com/mass_img_tmp_20220922/ocr_recognition_handwritten.jpg"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default=MODEL_ID, help="an id or a directory")
parser.add_argument("--model-revision", help="a branch or tag of the id")
parser.add_argument("--image", default=IMAGE, help="a URL, or a path, which is read as an array as well")
parser.add_argument("--work-dir", default="./card")
arguments = parser.parse_args()

# 1. the files of the model
cache_path = arguments.model
if arguments.model == MODEL_ID:
    cache_path = snapshot_download(arguments.model, revision=arguments.model_revision)
print(f"model:    {cache_path}")

# 2. reading: a URL or a path, and an array
ocr_recognition = pipeline(Tasks.ocr_recognition, model=arguments.model, model_revision=arguments.model_revision)
result = ocr_recognition(arguments.image)
print(f"read:     {result['text'][0]}")
if not arguments.image.startswith("http"):
    assert ocr_recognition(cv2.imread(arguments.image))["text"] == result["text"]

# 3. training on a data set of the hub
train_dataset, test_dataset = (
    MsDataset.load(
        dataset_name="ICDAR13_HCTR_Dataset",
        split="test",
        namespace="damo",
        download_mode=DownloadMode.REUSE_DATASET_IF_EXISTS,
    )
    for _ in range(2)
)


def _cfg_modify_fn(cfg):
    cfg.train.max_epochs = 1
    return cfg


kwargs = dict(  # noqa: C408  (as the card writes it)
    model=arguments.model,
    model_revision=arguments.model_revision,
    train_dataset=train_dataset,
    eval_dataset=test_dataset,
    work_dir=arguments.work_dir,
    cfg_modify_fn=_cfg_modify_fn,
)
trainer = build_trainer(name=Trainers.ocr_recognition, default_args=kwargs)
scores = trainer.train()
print(f"trained:  {scores['lines']} lines, CER {scores['cer']:.4f}")

# 4. reading with a chosen epoch
shutil.copy(f"{arguments.work_dir}/epoch_1.pth", f"{arguments.work_dir}/output/pytorch_model.pt")
tuned = pipeline(Tasks.ocr_recognition, model=f"{arguments.work_dir}/output")
print(f"reloaded: {tuned(arguments.image)['text'][0]}")

# 5. ONNX
model = Model.from_pretrained(f"{arguments.work_dir}/output")
print(f"exported: {Exporter.from_model(model).export_onnx(output_dir=arguments.work_dir)['model']}")
