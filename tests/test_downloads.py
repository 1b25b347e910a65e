"""Fetching files: from a folder, from an address, continued, pinned; and every way in which it can go wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.weights import downloads
from vtoonify_lib.weights.downloads import cache_folder, discard, fetch, sha256_of

NAME, REPOSITORY = "models/a b/weights.pt", "somebody/repository"
DATA = bytes(range(256)) * 4096  # 1 MB


class Server(ThreadingHTTPServer):
    """Serves DATA under every path, in the way a test asks for; remembers what was requested."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.data, self.etag, self.ranges = DATA, '"one"', True
        self.status, self.stop_after, self.content_type, self.delay = 200, None, "application/octet-stream", 0.0
        self.redirect: str | None = None
        self.linked: str | None = None
        self.requests: list[dict[str, str]] = []

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what some tests are about


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server: Server = self.server
        server.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
        time.sleep(server.delay)
        if server.redirect is not None and not self.path.startswith("/cdn"):
            self.send_response(302)
            self.send_header("Location", server.redirect)
            if server.linked:
                self.send_header("X-Linked-ETag", f'"{server.linked}"')
            self.end_headers()
            return
        if server.status != 200:
            self.send_error(server.status)
            return
        start, wanted = 0, self.headers.get("Range")
        if server.ranges and wanted and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.data):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.data) - 1}/{len(server.data)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_header("Content-Type", server.content_type)
        self.send_header("Content-Length", str(len(server.data) - start))
        self.end_headers()
        self.wfile.write(server.data[start : len(server.data) if server.stop_after is None else server.stop_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VTOONIFY_CACHE", str(tmp_path / "cache"))
    for variable in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache"


def get(source, **options):
    return fetch(NAME, REPOSITORY, source, progress=False, **options)


# ---------------------------------------------------------------------------------------------- it works
def test_download_pin_and_reuse(server, cache):
    first = get(server.address)
    assert first.path == cache / "files" / NAME and first.path.read_bytes() == DATA
    assert first.sha256 == hashlib.sha256(DATA).hexdigest() and first.bytes == len(DATA) and first.new
    assert str(first) == f"{NAME}: 1.0 MB, sha256 {first.sha256} (pinned now)"
    assert json.loads((cache / "pins.json").read_text()) == {NAME: {"sha256": first.sha256, "bytes": len(DATA)}}
    again = get(server.address)
    assert not again.new and again.sha256 == first.sha256 and "as pinned" in str(again)
    assert [request["path"] for request in server.requests] == ["/models/a%20b/weights.pt"]
    assert sorted(p.name for p in first.path.parent.iterdir()) == ["weights.pt"]


def test_the_hub_is_the_default_source(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    assert get(None).bytes == len(DATA)
    assert server.requests[0]["path"] == "/somebody/repository/resolve/main/models/a%20b/weights.pt"
    monkeypatch.delenv("HF_ENDPOINT")
    assert downloads._address("a", "b/c", None) == "https://huggingface.co/b/c/resolve/main/a"


@pytest.mark.parametrize("place", [NAME, NAME.partition("/")[2]])
def test_folder_with_and_without_its_first_level(tmp_path, cache, place):
    path = tmp_path / "drive" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    found = get(tmp_path / "drive")
    assert found.path == path and found.new and not get(str(tmp_path / "drive")).new
    assert not (cache / "files").exists()  # used where it lies


def test_cache_folder(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("VTOONIFY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "vtoonify"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "vtoonify"


def test_progress_is_shown(server, capsys):
    fetch(NAME, REPOSITORY, server.address)
    assert "weights.pt" in capsys.readouterr().err


def test_redirect_with_the_hash_the_hub_publishes(server):
    server.redirect, server.linked = f"{server.address}/cdn/file", sha256_hex(DATA)
    assert get(server.address).bytes == len(DATA)
    assert [request["path"] for request in server.requests][1] == "/cdn/file"


# ---------------------------------------------------------------------------------------------- broken and continued
def test_a_broken_download_is_continued(server, cache):
    server.stop_after = 400_000
    with pytest.raises(VToonifyError, match=r"weights.pt is incomplete: .* after 0.4 of 1.0 MB .* run the same again"):
        get(server.address)
    part = cache / "files" / f"{NAME}.part"
    assert part.stat().st_size == 400_000 and not (cache / "files" / NAME).exists()
    assert not (cache / "pins.json").exists()
    server.stop_after = None
    assert get(server.address).path.read_bytes() == DATA
    assert server.requests[1]["range"] == "bytes=400000-" and server.requests[1]["if-range"] == '"one"'
    assert not part.exists()


@pytest.mark.parametrize("change", ["no ranges", "changed file", "no validator", "other address", "spoiled note"])
def test_what_cannot_be_continued_begins_anew(server, cache, change):
    server.etag = None if change == "no validator" else server.etag
    server.stop_after = 400_000
    with pytest.raises(VToonifyError, match="incomplete"):
        get(server.address)
    server.stop_after, source = None, server.address
    if change == "no ranges":
        server.ranges = False
    elif change == "changed file":
        server.data, server.etag = DATA[::-1], '"two"'
    elif change == "other address":
        source += "/mirror"
    elif change == "spoiled note":
        (cache / "files" / f"{NAME}.part.json").write_text("[")
    assert get(source).path.read_bytes() == server.data
    asked = "range" in server.requests[1]
    assert asked == (change in ("no ranges", "changed file"))


def test_a_part_that_is_longer_than_the_file_begins_anew(server, cache):
    server.stop_after = 400_000
    with pytest.raises(VToonifyError, match="incomplete"):
        get(server.address)
    server.data, server.stop_after = DATA[:1000], None
    assert get(server.address).path.read_bytes() == DATA[:1000]


def test_an_interrupted_download_keeps_its_part(server, cache, monkeypatch):
    class Bar(downloads.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "tqdm", Bar)
    monkeypatch.setattr(downloads, "CHUNK", 100_000)
    with pytest.raises(KeyboardInterrupt):
        get(server.address)
    monkeypatch.undo()
    assert (cache / "files" / f"{NAME}.part").stat().st_size == 100_000
    assert fetch(NAME, REPOSITORY, server.address, cache, progress=False).path.read_bytes() == DATA
    assert server.requests[1]["range"] == "bytes=100000-"


def test_wrong_part_of_the_file_is_refused(server, cache, monkeypatch):
    server.stop_after = 400_000
    with pytest.raises(VToonifyError, match="incomplete"):
        get(server.address)
    server.stop_after = None
    original = Handler.send_header
    monkeypatch.setattr(Handler, "send_header", lambda self, key, value: original(
        self, key, value.replace("bytes 4", "bytes 3") if key == "Content-Range" else value))
    with pytest.raises(VToonifyError, match="sent another part of the file"):
        get(server.address)


# ---------------------------------------------------------------------------------------------- refused
def test_another_file_under_the_same_name_is_refused(server, tmp_path, cache):
    get(server.address)
    other = tmp_path / "drive" / NAME
    other.parent.mkdir(parents=True)
    other.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(VToonifyError, match=r"refused: .* when it was first seen\..*delete its entry in .*pins.json"):
        get(tmp_path / "drive")
    (cache / "files" / NAME).write_bytes(DATA[:-1])
    with pytest.raises(VToonifyError, match="is refused: it has 1048575 bytes"):
        get(server.address)
    (cache / "files" / NAME).unlink()
    server.data = DATA[::-1]
    with pytest.raises(VToonifyError, match="refused"):
        get(server.address)


def test_spoiled_pins_are_not_forgotten(server, cache):
    get(server.address)
    for spoiled in ("{", "[]", '{"a": 1}', '{"a": {"sha256": 1}}'):
        (cache / "pins.json").write_text(spoiled)
        with pytest.raises(VToonifyError, match="pins.json cannot be read"):
            get(server.address)


def test_discard_forgets_what_was_new_only(server, cache, tmp_path):
    first = get(server.address)
    discard(first)
    assert not first.path.exists() and json.loads((cache / "pins.json").read_text()) == {}
    get(server.address)
    known = get(server.address)
    discard(known)
    assert not known.path.exists() and NAME in json.loads((cache / "pins.json").read_text())
    mine = tmp_path / NAME
    mine.parent.mkdir(parents=True)
    mine.write_bytes(DATA)
    discard(get(tmp_path))
    assert mine.exists()  # a user's own file is never deleted


def test_hash_other_than_the_hub_publishes(server, cache):
    server.redirect, server.linked = f"{server.address}/cdn/file", sha256_hex(b"something else")
    with pytest.raises(VToonifyError, match="another sha256 than its repository publishes"):
        get(server.address)
    assert not list((cache / "files").rglob("*.pt")) and not list((cache / "files").rglob("*.part"))


def test_redirect_out_of_https():
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.URLError, match="out of https"):
        request = urllib.request.Request("https://a.example/file")
        downloads._Redirects().redirect_request(request, None, 302, "Found", {}, "http://b.example/file")


@pytest.mark.parametrize(("status", "message"), [
    (404, r"is not there \(404\)"), (401, "asks for a login .HTTP 401"), (403, "asks for a login"),
    (429, "does not send the file .HTTP 429"), (503, "HTTP 503.; try again later, or give another source with --from"),
])
def test_http_errors(server, status, message):
    server.status = status
    with pytest.raises(VToonifyError, match=message):
        get(server.address)
    assert len(server.requests) == 1  # no retries


def test_a_web_page_is_not_a_file(server, cache):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(VToonifyError, match="answers with a web page"):
        get(server.address)
    assert not (cache / "pins.json").exists()


@pytest.mark.parametrize("data", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"])
def test_a_pointer_is_not_a_file(tmp_path, data, cache):
    (tmp_path / NAME).parent.mkdir(parents=True)
    (tmp_path / NAME).write_bytes(data)
    with pytest.raises(VToonifyError, match="git lfs pull"):
        get(tmp_path)
    assert not (cache / "pins.json").exists()


def test_folders_that_lack_the_file(tmp_path):
    with pytest.raises(VToonifyError, match="nowhere is not a folder"):
        get(tmp_path / "nowhere")
    with pytest.raises(VToonifyError, match=r"has no models/a b/weights.pt; it was looked for at .* and at "):
        get(tmp_path)


# ---------------------------------------------------------------------------------------------- offline, full disk
def test_nobody_listens(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.monotonic()
    with pytest.raises(VToonifyError, match=r"127.0.0.1:.* cannot be reached \(.*refused.*\); .*--from FOLDER"):
        get(f"http://127.0.0.1:{port}")
    assert time.monotonic() - start < 2


def test_unknown_host_and_silent_host_answer_soon(server, monkeypatch):
    monkeypatch.setattr(downloads, "CONNECT_SECONDS", 0.2)
    server.delay = 1.0
    with pytest.raises(VToonifyError, match="no answer within"):
        get(server.address)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1.0))  # a resolver that has no network
    start = time.monotonic()
    with pytest.raises(VToonifyError, match="huggingface.co/.*no answer within 0 seconds.*--from FOLDER"):
        get(None)
    assert time.monotonic() - start < 0.9


def test_offline_by_wish_asks_nobody(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(VToonifyError, match="HF_HUB_OFFLINE is set"):
        get(server.address)
    assert not server.requests
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    get(server.address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    get(server.address)  # it is here already


@pytest.mark.parametrize("address", ["http://", "https://[", "http://a.example:99999/"])
def test_addresses_that_are_none(address):
    with pytest.raises(VToonifyError, match="cannot be reached"):
        get(address)


def test_full_disk(server, cache, monkeypatch):
    usage = downloads.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(VToonifyError, match="needs 1 MB more and the disk of .* has 0 MB free"):
        get(server.address)
    monkeypatch.undo()
    monkeypatch.setenv("VTOONIFY_CACHE", str(cache))
    real = open

    class Full:
        def __init__(self, *arguments, **options):
            self.file = real(*arguments, **options)

        def write(self, data):
            self.file.write(data[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    monkeypatch.setattr(downloads, "open", lambda path, mode="r", **options: Full(path, mode, **options)
                        if str(path).endswith(".part") else real(path, mode, **options), raising=False)
    with pytest.raises(VToonifyError, match="the disk is full, .*free some space and run the same again"):
        get(server.address)
    monkeypatch.delattr(downloads, "open")
    assert get(server.address).path.read_bytes() == DATA
    assert server.requests[-1]["range"] == "bytes=1000-"


def test_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VTOONIFY_CACHE", str(tmp_path / "file"))
    with pytest.raises(VToonifyError, match="cannot be written .*set VTOONIFY_CACHE to a folder that can"):
        get(server.address)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_sha256_of(tmp_path):
    (tmp_path / "a").write_bytes(DATA)
    assert sha256_of(tmp_path / "a") == sha256_hex(DATA)
