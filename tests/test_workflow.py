"""The loop that the model card describes, from an LMDB to the exported file, until the lines are read without error."""

import shutil
from pathlib import Path

import onnxruntime
from conftest import TINY_NETWORK, make_model_dir, png, random_texts, render
from modelscope.exporters import Exporter
from modelscope.metainfo import Trainers
from modelscope.models import Model
from modelscope.msdatasets import MsDataset
from modelscope.pipelines import pipeline
from modelscope.trainers import build_trainer
from modelscope.utils.constant import DownloadMode, Tasks

from ms_ocr_handwritten import Recognizer
from ms_ocr_handwritten.image import load_image, rgb_pieces
from ms_ocr_handwritten.lmdb.store import write_lmdb

CHARACTERS = "abc012"
TEXTS = [text.translate(str.maketrans("defghij3456789", "abc012abc012ab")) for text in random_texts(24, 3, seed=3)]
NETWORK = {**TINY_NETWORK, "dims": [32, 48, 64, 96], "embed_dim": 96}
LINES_PER_STEP, EPOCHS, RATE = 8, 100, 1e-3
STEPS = EPOCHS * len(TEXTS) // LINES_PER_STEP


def modify(cfg):
    """From scratch: one cycle of the rate over all steps; files and scores at the end alone."""
    cfg.train.max_epochs = EPOCHS
    cfg.train.dataloader.batch_size_per_gpu = LINES_PER_STEP
    cfg.train.optimizer = {"type": "AdamW", "lr": RATE, "weight_decay": 0.0, "options": {"grad_clip": {"max_norm": 5}}}
    cfg.train.lr_scheduler = {
        "type": "OneCycleLR",
        "max_lr": RATE,
        "total_steps": STEPS,
        "pct_start": 0.15,
        "options": {"by_epoch": False},
    }
    cfg.train.checkpoint.period.interval = EPOCHS
    cfg.evaluation.period.interval = EPOCHS
    return cfg


def test_from_lines_to_the_exported_file(tmp_path, blocked_network):
    model_dir, work_dir = make_model_dir(tmp_path / "model", CHARACTERS, **NETWORK), tmp_path / "work_dir"
    (model_dir / "pytorch_model.pt").unlink()  # from scratch
    write_lmdb(tmp_path / "local_lmdb", [(png(render(text)), text) for text in TEXTS])
    train_dataset, test_dataset = (
        MsDataset.load(
            dataset_name="ICDAR13_HCTR_Dataset",
            split="test",
            namespace="damo",
            download_mode=DownloadMode.REUSE_DATASET_IF_EXISTS,
            local_lmdb=str(tmp_path / "local_lmdb"),
        )
        for _ in range(2)
    )

    trainer = build_trainer(
        name=Trainers.ocr_recognition,
        default_args={
            "model": str(model_dir),
            "train_dataset": train_dataset,
            "eval_dataset": test_dataset,
            "work_dir": str(work_dir),
            "cfg_modify_fn": modify,
        },
    )
    scores = trainer.train()
    assert (scores["cer"], scores["accuracy"], scores["lines"]) == (0, 1, len(TEXTS))

    output = work_dir / "output"
    shutil.copy(work_dir / f"epoch_{EPOCHS}.pth", output / "pytorch_model.pt")
    shutil.copytree(output, tmp_path / "elsewhere")
    shutil.rmtree(work_dir)  # what was copied needs nothing of it
    images = [render(text) for text in TEXTS]
    reader = pipeline(Tasks.ocr_recognition, model=str(tmp_path / "elsewhere"))
    assert [line["text"] for line in reader(images, batch_size=5)] == TEXTS
    assert [line.text for line in Recognizer.from_pretrained(tmp_path / "elsewhere").read_many(images)] == TEXTS

    exporter = Exporter.from_model(Model.from_pretrained(str(tmp_path / "elsewhere")))
    files = exporter.export_onnx(output_dir=str(tmp_path / "elsewhere"))
    assert [
        line.text for line in Recognizer.from_pretrained(tmp_path / "elsewhere", "onnxruntime").read_many(images)
    ] == TEXTS
    assert read_as_the_card(files["model"], images[0]) == TEXTS[0]
    assert blocked_network == []


def read_as_the_card(model: str | Path, image) -> str:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(
        [session.get_outputs()[0].name], {session.get_inputs()[0].name: rgb_pieces(load_image(image))}
    )
    ids = logits[0].argmax(-1).tolist()
    return "".join(CHARACTERS[now - 2] for before, now in zip([0, *ids], ids) if now not in (0, before))
