"""The limits of a server."""

from dataclasses import dataclass, replace

from ..errors import ConfigurationError
from ..image.limits import PAGE_LIMITS, Limits

URLS = ("none", "public", "any")


@dataclass(frozen=True)
class ServeOptions:
    """The limits of a server; all are inclusive.

    limits, page_limits: of a line image, and of each page
    urls: whether images are downloaded from URLs that clients send: "none", from "public" addresses, or from "any"
    queue, page_queue: requests in preparation, waiting or being computed, for lines and for pages
    batch_size: maximum number of lines per batch
    wait: s that the first line of a batch waits for others at most
    seconds: per request, from its head to the response
    receive_seconds: for the head, and for the body
    received_bytes: of bodies in memory, over all requests
    max_pages: of a PDF or TIFF
    connections: maximum number of open connections
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
        """`limits` with the addresses that URLs may point to."""
        return replace(limits, private_addresses=self.urls == "any")
