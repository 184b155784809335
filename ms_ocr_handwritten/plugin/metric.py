"""ModelScope's metric `ocr-recognition-metric`: CER, AR, CR, line accuracy and loss, mergeable over ranks."""

from typing import Any

from modelscope.metrics.base import Metric
from modelscope.metrics.builder import METRICS

from ..metrics import Scores


@METRICS.register_module("default", module_name="ocr-recognition-metric")
class OCRRecognitionMetric(Metric):
    """Scores of the added batches; `evaluate` returns plain numbers (None if there was nothing to measure)."""

    def __init__(self) -> None:
        self.scores = Scores.empty()

    def add(self, outputs: dict[str, Any], inputs: dict[str, Any]) -> None:
        """outputs: 'preds', B texts, and 'loss', the batch's mean loss; inputs: 'labels', B texts."""
        for text, label in zip(outputs["preds"], inputs["labels"], strict=True):
            self.scores.add(text, label, float(outputs["loss"]))

    def evaluate(self) -> dict[str, float | int | None]:
        return self.scores.summary()

    def merge(self, other: "OCRRecognitionMetric") -> None:
        self.scores = self.scores + other.scores
