"""The HTTP server: server.py (sockets) -> app.py (HTTP) -> doors.py (threads) -> batching.py (batch computation)."""
