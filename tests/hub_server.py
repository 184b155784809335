"""A hub on loopback that answers what ModelScope 1.35 and the newest ask: models, data sets and their object storage.

It speaks TLS, as ModelScope 1.35 asks for `https://` of whatever host `MODELSCOPE_DOMAIN` names, and oss2 for the same
of the storage of data sets. `environment` makes a process use it; nothing of ModelScope or of this package is replaced.
"""

import contextlib
import datetime
import hashlib
import http.server
import io
import ipaddress
import json
import ssl
import threading
import time
import urllib.parse
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CREATED = 1_600_000_000  # s; before the release of every ModelScope, which takes no younger revision by default
LMDB_DATA_SET = 2  # the hub's number for a data set that is described by a file NAME.json and lies in object storage
BUCKET = "bucket"


@dataclass
class Hub:
    """What is served and what goes wrong. Revisions are folders: {'owner/name': {'master': folder, 'v1.0.0': ...}}."""

    models: dict[str, dict[str, Path]] = field(default_factory=dict)
    data_sets: dict[str, dict[str, Path]] = field(default_factory=dict)  # {'owner/name': {split: folder to be zipped}}
    late: float = 0.0  # s before the next answer; the following ones come at once
    silent: bool = False  # accepts connections, and says nothing
    break_off: str | None = None  # a file of which only the first half comes; then all connections break, until None
    broken: bool = False
    asked: list[str] = field(default_factory=list)  # "METHOD /path?query [range]", in order
    unknown: list[str] = field(default_factory=list)  # what it has no answer to, which should be nothing

    def __post_init__(self) -> None:
        self.server: http.server.ThreadingHTTPServer | None = None
        self.port, self.certificate = 0, Path()

    def start(self, folder: Path) -> "Hub":
        """Serve, at the same port as before if there was one. `folder` gets the certificate."""
        certificate = folder / "hub.pem"
        if not certificate.exists():
            certificate.write_bytes(_certificate())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = _Server(("127.0.0.1", self.port), type("Handler", (_Handler,), {"hub": self}))
        server.context = context
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self.server, self.port, self.certificate = server, server.server_port, certificate
        return self

    def stop(self) -> None:
        """Connections are refused from now on."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def environment(self, cache: Path) -> dict[str, str]:
        """Of a process that uses this hub, with `cache` as ModelScope's."""
        return {
            "MODELSCOPE_DOMAIN": f"127.0.0.1:{self.port}",
            "MODELSCOPE_CACHE": str(cache),
            "MODELSCOPE_HOME": str(cache / "home"),
            "REQUESTS_CA_BUNDLE": str(self.certificate),  # for requests: ModelScope and oss2
            "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "1",
            "no_proxy": "127.0.0.1",
        }


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:  # in the thread of the connection
        with contextlib.suppress(OSError):  # the client went away, as those of these tests do
            super().finish_request(self.context.wrap_socket(request, server_side=True), client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub, url = self.hub, urllib.parse.urlsplit(self.path)
        if hub.broken:
            self.close_connection = True
            return
        hub.asked.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".rstrip())
        while hub.silent:
            time.sleep(0.05)
        late, hub.late = hub.late, 0.0
        time.sleep(late)
        query = dict(urllib.parse.parse_qsl(url.query))
        match urllib.parse.unquote(url.path).strip("/").split("/"):
            case ["api", "v1", "models", owner, name, *what]:
                self._model(f"{owner}/{name}", what, query)
            case ["openapi", "v1", "models", owner, name]:
                self._model(f"{owner}/{name}", [], query)
            case ["api", "v1", "datasets", identifier, "repo", "tree"] if identifier.isdigit():
                self._tree(list(hub.data_sets)[int(identifier) - 1])
            case ["api", "v1", "datasets", owner, name, *what]:
                self._data_set(f"{owner}/{name}", what, query)
            case ["api", "v1", "repos", "internalAccelerationInfo"]:
                self._json({"InternalRegionQueryAddress": ""})
            case [first, "datasets", owner, name, archive] if first == BUCKET:
                self._file(self._archive(f"{owner}/{name}", archive), archive)
            case _:
                hub.unknown.append(hub.asked[-1])
                self._missing()

    do_HEAD = do_POST = do_GET

    def _model(self, model: str, what: list[str], query: dict[str, str]) -> None:
        revisions = self.hub.models.get(model)
        folder = (revisions or {}).get(query.get("Revision", "master"))
        if revisions is None or folder is None:
            self._missing()
        elif not what:
            owner, name = model.split("/")
            self._json({"Id": 1, "Name": name, "Path": owner, "owner": owner, "name": name, "Visibility": 5})
        elif what == ["revisions"]:
            entries = [{"Revision": revision, "CreatedAt": CREATED} for revision in revisions]
            branches = [entry for entry in entries if entry["Revision"] == "master"]
            tags = [entry for entry in entries if entry["Revision"] != "master"]
            self._json({"RevisionMap": {"Branches": branches, "Tags": tags}})
        elif what == ["repo", "files"]:
            self._json({"Files": [_entry(folder, path) for path in sorted(folder.rglob("*"))]})
        elif what == ["repo"] and (folder / query["FilePath"]).is_file():
            self._file((folder / query["FilePath"]).read_bytes(), query["FilePath"])
        else:
            self._missing()

    def _data_set(self, data_set: str, what: list[str], query: dict[str, str]) -> None:
        splits = self.hub.data_sets.get(data_set)
        if splits is None:
            self._missing()
        elif not what:
            self._json({"Id": list(self.hub.data_sets).index(data_set) + 1, "Type": LMDB_DATA_SET})
        elif what == ["repo"]:
            self._file(json.dumps(_description(splits)).encode(), query["FilePath"])
        elif what == ["ststoken"]:
            keys = {"AccessId": "id", "AccessSecret": "secret", "SecurityToken": "token"}
            folder = f"datasets/{data_set}"
            # oss2 asks https://REGION.aliyuncs.com; with this region, and an address for a host, that is this server
            self._json(
                keys | {"Bucket": BUCKET, "Dir": folder, "BackupDir": folder, "Region": f"127.0.0.1:{self.hub.port}/"}
            )
        elif what[:2] == ["oss", "tree"]:
            self._json([{"Key": f"{split}.zip"} for split in splits])
        elif what == ["download", "increase"]:
            self._json(None)
        else:
            self._missing()

    def _tree(self, data_set: str) -> None:
        name = data_set.partition("/")[2]
        files = [{"Path": f"{name}.json", "Name": f"{name}.json", "Type": "blob", "Size": 1}]
        self._json({"Files": files, "TotalCount": 1})

    def _archive(self, data_set: str, archive: str) -> bytes:
        folder = self.hub.data_sets[data_set][archive.removesuffix(".zip")]
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for path in sorted(folder.rglob("*")):
                file.write(path, path.relative_to(folder))
        return buffer.getvalue()

    def _json(self, data: Any) -> None:
        self._send(200, json.dumps({"Code": 200, "Success": True, "Message": "success", "Data": data}).encode(), {})

    def _missing(self) -> None:
        body = {"Code": 10010205001, "Success": False, "Message": "not found", "Data": None}
        self._send(404, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, content: bytes, name: str) -> None:
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        wanted, total = self.headers.get("Range"), len(content)
        if wanted is None:
            self._send(200, content, headers, cut=name == self.hub.break_off)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or total - 1), total - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{total}"
        self._send(206, content[start : end + 1], headers, cut=name == self.hub.break_off)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.hub.broken = True
            self.close_connection = True


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    """A file as the hub lists it."""
    name = path.relative_to(folder).as_posix()
    content = b"" if path.is_dir() else path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    entry = {"Name": path.name, "Path": name, "CommittedDate": CREATED, "Revision": digest[:40]}  # its last commit
    if path.is_dir():
        return entry | {"Type": "tree", "Size": 0}
    return entry | {"Type": "blob", "Size": len(content), "Sha256": digest}


def _description(splits: dict[str, Path]) -> dict[str, Any]:
    """NAME.json of a data set without a table: one archive for each split."""
    return {"default": {split: {"meta": "", "file": f"{split}.zip", "args": {}} for split in splits}}


def _certificate() -> bytes:
    """A key and a certificate for 127.0.0.1 that it signs itself, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hub of the tests")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return encoded + certificate.public_bytes(serialization.Encoding.PEM)
