"""Fine-tune a model on a local LMDB, which `ms-ocr lmdb` makes from images and their labels.

python finetune.py MODEL_DIRECTORY_OR_ID ./local_lmdb [--epochs 3] [--work-dir ./work_dir]
"""

import argparse

from modelscope.metainfo import Trainers
from modelscope.msdatasets import MsDataset
from modelscope.trainers import build_trainer
from modelscope.utils.constant import DownloadMode

import ms_ocr_handwritten  # noqa: F401  (registers)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("local_lmdb")
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--work-dir", default="./work_dir")
arguments = parser.parse_args()

train_dataset = MsDataset.load(
    dataset_name="ICDAR13_HCTR_Dataset",
    split="test",
    namespace="damo",
    download_mode=DownloadMode.REUSE_DATASET_IF_EXISTS,
    local_lmdb=arguments.local_lmdb,
)

# the card evaluates on its training lines; use other lines for meaningful scores
test_dataset = MsDataset.load(
    dataset_name="ICDAR13_HCTR_Dataset",
    split="test",
    namespace="damo",
    download_mode=DownloadMode.REUSE_DATASET_IF_EXISTS,
    local_lmdb=arguments.local_lmdb,
)


# any setting of configuration.json can be changed here
def _cfg_modify_fn(cfg):
    cfg.train.max_epochs = arguments.epochs
    return cfg


kwargs = dict(  # noqa: C408  (as the card writes it)
    model=arguments.model,
    train_dataset=train_dataset,
    eval_dataset=test_dataset,
    work_dir=arguments.work_dir,
    cfg_modify_fn=_cfg_modify_fn,
)

trainer = build_trainer(name=Trainers.ocr_recognition, default_args=kwargs)
print(trainer.train())
