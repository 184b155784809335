"""What a server allows."""

from dataclasses import dataclass, replace

from ..errors import ConfigurationError
from ..image.limits import PAGE_LIMITS, Limits

URLS = ("none", "public", "any")


@dataclass(frozen=True)
class ServeOptions:
    """The bounds of a server; all of them are inclusive.

    limits, page_limits: of a picture of a line, and of each page
    urls: whether pictures are fetched from URLs that clients send: "none", from "public" addresses, or from "any"
    queue, page_queue: requests that are prepared, wait or are computed, of lines and of pages
    batch_size: lines of a batch at most
    wait: s that the first line of a batch waits for others at most
    seconds: of a request, from its head to the answer
    receive_seconds: of the head, and of the body
    received_bytes: of bodies in memory, of all requests together
    max_pages: of a PDF or TIFF
    connections: open at a time
    """

    limits: Limits = Limits()
    page_limits: Limits = PAGE_LIMITS
    urls: str = "none"
    queue: int = 256
    page_queue: int = 8
    batch_size: int = 32
    wait: float = 0.005
    seconds: float = 30.0
    receive_seconds: float = 10.0
    received_bytes: int = 256 * 1024 * 1024
    max_pages: int = 10
    connections: int = 512

    def __post_init__(self) -> None:
        if self.urls not in URLS:
            raise ConfigurationError(f"urls is {self.urls!r}; {', '.join(URLS)} expected")

    def fetching(self, limits: Limits) -> Limits:
        """`limits` with the addresses that URLs may lead to."""
        return replace(limits, private_addresses=self.urls == "any")
