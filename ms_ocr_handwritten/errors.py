"""The exceptions a caller can catch; every message names the culprit and the remedy.

All derive from `OcrError`. Each also derives from the matching builtin exception, so that
`except ValueError` or `except OSError` around existing code keeps working.
"""


class OcrError(Exception):
    """Base of every error that this package raises on purpose."""


class ImageError(OcrError, ValueError):
    """A source cannot be read as an image of a line: missing, empty, truncated, too large, or not an image.

    `index` is its position (from 0) in the input, if it was one of several and has no name of its own.
    """

    index: int | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.index is None else f"image {self.index}: {message}"


class DataError(OcrError, ValueError):
    """A data set does not follow its format. The message names the file, and the record or offset."""


class LmdbError(DataError):
    """An LMDB, or one of its records, does not follow the format. The message names the path and the key."""


class LabelError(OcrError, ValueError):
    """A label holds characters outside the vocabulary, or cannot be aligned with the columns of its line."""


class VocabularyError(OcrError, ValueError):
    """A vocabulary file is unusable or does not fit the head of the network."""


class ConfigurationError(OcrError, ValueError):
    """A configuration holds an unknown key or an invalid value. The message names the dotted key."""


class CheckpointError(OcrError, ValueError):
    """A weights file is truncated, unsafe, or belongs to another network."""


class BackendError(OcrError, RuntimeError):
    """The requested backend or precision is not available here, or its result was rejected."""


class QuantizationError(OcrError, RuntimeError):
    """A file cannot be quantised to int8, the int8 file is too inaccurate, or it could not be measured."""


class OutputError(OcrError, OSError):
    """An output exists already, or cannot be written."""


class HubError(OcrError, OSError):
    """A model id was given, but neither the hub nor ModelScope's local cache could provide the model."""


class LanguageModelError(OcrError, ValueError):
    """A language model cannot be read, has another vocabulary, or cannot be built from the text given."""


class LexiconError(OcrError, ValueError):
    """A lexicon or the allowed characters are empty or not covered by the vocabulary. Names file and line."""


class RequestError(OcrError, ValueError):
    """The server rejects a request. `status` is the HTTP status of the response."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class BusyError(OcrError, RuntimeError):
    """The server is too busy for a request. `retry_after` is the time until the next try, in s."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
