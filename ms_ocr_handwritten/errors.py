"""The exceptions a caller can catch; every message names the culprit and the remedy.

All derive from `OcrError`. Each also derives from the builtin that fits it, so that
`except ValueError` or `except OSError` around existing code keeps working.
"""


class OcrError(Exception):
    """Base of every error that this package raises on purpose."""


class ImageError(OcrError, ValueError):
    """A source cannot be read as an image of a line: missing, empty, truncated, too large, no image.

    `index` is its place in the list that was read, from 0, if it was in one and has no name of its own.
    """

    index: int | None = None

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.index is None else f"image {self.index}: {message}"


class DataError(OcrError, ValueError):
    """A data set is not what its format asks for. The message holds the file, and the record or offset."""


class LmdbError(DataError):
    """An LMDB, or one record of it, is not what the format asks for. The message holds the path and the key."""


class LabelError(OcrError, ValueError):
    """A label holds characters outside the vocabulary, or cannot be aligned with the columns of its line."""


class VocabularyError(OcrError, ValueError):
    """A vocabulary file is unusable or does not fit the head of the network."""


class ConfigurationError(OcrError, ValueError):
    """A configuration holds an unknown key or a value that does not fit. The message holds the dotted key."""


class CheckpointError(OcrError, ValueError):
    """A file of weights is truncated, unsafe, or of another network."""


class BackendError(OcrError, RuntimeError):
    """The backend or precision asked for is not available here, or its result was refused."""


class QuantizationError(OcrError, RuntimeError):
    """An int8 file cannot be made of this one, reads too much worse than it, or could not be measured."""


class OutputError(OcrError, OSError):
    """What should be written exists already, or cannot be written."""


class HubError(OcrError, OSError):
    """A model id was given, and neither the hub nor ModelScope's local cache could serve it."""


class LanguageModelError(OcrError, ValueError):
    """A language model cannot be read, is of another vocabulary, or cannot be made of the text given."""


class LexiconError(OcrError, ValueError):
    """A lexicon, or the characters allowed, are empty or cannot be written with the vocabulary. Names file and line."""


class RequestError(OcrError, ValueError):
    """A request to the server is not one that it takes. `status` is the HTTP status of the answer."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class BusyError(OcrError, RuntimeError):
    """The server has no place or no time for a request. `retry_after` is when to ask again, in s."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
