"""Fetching files: from a folder, from an address, continued, pinned; and every way in which it can go wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from errors import refuses

from vtoonify_lib.weights import downloads
from vtoonify_lib.weights.downloads import cache_folder, discard, fetch

NAME, REPOSITORY = "models/a b/weights.pt", "somebody/repository"
DATA = bytes(range(256)) * 4096  # 1 MB
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves DATA under every path, in the way a test asks for; remembers path and range of what was requested."""

    daemon_threads = True
    data, etag, ranges, status, stop_after, delay = DATA, '"one"', True, 200, None, 0.0
    content_type, linked = "application/octet-stream", ""  # with a hash in `linked` it redirects as the hub does

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.address, self.requests = f"http://127.0.0.1:{self.server_port}", []

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what some tests are about


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        time.sleep(server.delay)
        if server.linked and self.path != "/cdn":
            return self.answer(302, {"Location": "/cdn", "X-Linked-ETag": f'"{server.linked}"'})
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        headers = {"ETag": server.etag} if server.etag else {}
        self.answer(206 if start else server.status, {
            **headers, "Content-Type": server.content_type, "Content-Length": str(len(server.data) - start)})
        self.wfile.write(server.data[start : server.stop_after])

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("VTOONIFY_CACHE", str(tmp_path / "cache"))
    for variable in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path / "cache"


def get(source):
    return fetch(NAME, REPOSITORY, source, progress=False)


def put(folder: Path, data: bytes) -> Path:
    """DATA's file in a folder of the user's."""
    path = folder / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def parts(cache: Path) -> list[Path]:
    return list((cache / "files").rglob("*.part"))


# ---------------------------------------------------------------------------------------------- it works
def test_download_pin_and_reuse(server, cache, capsys):
    first = fetch(NAME, REPOSITORY, server.address)
    assert "weights.pt" in capsys.readouterr().err  # the progress
    assert first.path == cache / "files" / NAME and first.path.read_bytes() == DATA
    assert str(first) == f"{NAME}: 1.0 MB, sha256 {SHA256} (pinned now)" and first.sha256 == SHA256 and first.new
    assert json.loads((cache / "pins.json").read_text()) == {NAME: SHA256}
    again = get(server.address)
    assert not again.new and again.sha256 == SHA256 and "as pinned" in str(again)
    assert server.requests == [("/models/a%20b/weights.pt", None)]
    assert os.listdir(first.path.parent) == ["weights.pt"]


def test_the_hub_is_the_default_source(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    get(None)
    assert server.requests[0][0] == "/somebody/repository/resolve/main/models/a%20b/weights.pt"


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


# ---------------------------------------------------------------------------------------------- broken and continued
@pytest.mark.parametrize("change", [None, "changed file", "no version", "no ranges", "other address", "longer part"])
def test_a_broken_download_is_continued_if_it_can_be(server, cache, change):
    server.stop_after, server.etag = 400_000, None if change == "no version" else '"one"'
    with refuses("unfetched", "weights.pt", 648576):
        get(server.address)
    assert [part.stat().st_size for part in parts(cache)] == [400_000]
    assert not (cache / "files" / NAME).exists() and not (cache / "pins.json").exists()
    server.stop_after, server.ranges = None, change != "no ranges"
    if change == "changed file":
        server.data, server.etag = DATA[::-1], '"two"'
    if change == "longer part":
        parts(cache)[0].write_bytes(DATA + b"!")
    get(server.address + ("/mirror" if change == "other address" else ""))
    assert (cache / "files" / NAME).read_bytes() == server.data
    assert (server.requests[-1][1] == "bytes=400000-") == (change in (None, "no ranges"))


def test_an_interrupted_download_keeps_its_part(server, cache, monkeypatch):
    class Bar(downloads.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "tqdm", Bar)
    monkeypatch.setattr(downloads, "CHUNK", 100_000)
    with pytest.raises(KeyboardInterrupt):
        get(server.address)
    assert [part.stat().st_size for part in parts(cache)] == [100_000]


@pytest.mark.parametrize("linked", [SHA256, "0" * 64])
def test_the_hash_that_the_hub_publishes(server, cache, linked):
    server.linked = linked
    if linked == SHA256:
        assert get(server.address).sha256 == SHA256 and server.requests[1][0] == "/cdn"
    else:
        with refuses("changed", linked):
            get(server.address)
        assert not parts(cache) and not (cache / "files" / NAME).exists()


# ---------------------------------------------------------------------------------------------- refused
def test_another_file_under_the_same_name_is_refused(server, tmp_path, cache):
    get(server.address)
    put(tmp_path / "drive", DATA[:-1] + b"!")
    with refuses("changed", tmp_path / "drive" / NAME, SHA256, cache / "pins.json"):
        get(tmp_path / "drive")
    (cache / "files" / NAME).write_bytes(DATA[:-1])
    with refuses("changed", SHA256):
        get(server.address)
    (cache / "files" / NAME).unlink()
    server.data = DATA[::-1]
    with refuses("changed", SHA256):
        get(server.address)
    for spoiled in ("{", "[]"):  # damaged pins are not forgotten
        (cache / "pins.json").write_text(spoiled)
        with refuses("unreadable", cache / "pins.json"):
            get(server.address)


def test_discard_forgets_what_was_new_only(server, cache, tmp_path):
    first = get(server.address)
    discard(first)
    assert not first.path.exists() and json.loads((cache / "pins.json").read_text()) == {}
    get(server.address)
    discard(get(server.address))
    assert not first.path.exists() and NAME in json.loads((cache / "pins.json").read_text())
    mine = put(tmp_path, DATA)
    discard(get(tmp_path))
    assert mine.exists()  # a user's own file is never deleted


def test_a_redirect_out_of_https():
    with pytest.raises(urllib.error.URLError, match="out of https"):
        request = urllib.request.Request("https://a.example/file")
        downloads._Redirects().redirect_request(request, None, 302, "Found", {}, "http://b.example/file")


def test_folders_that_lack_the_file(tmp_path, cache):
    with refuses("missing", tmp_path / "nowhere"):
        get(tmp_path / "nowhere")
    with refuses("missing", tmp_path, NAME):
        get(tmp_path)
    for data in (b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"):
        put(tmp_path, data)
        with refuses("unreadable", tmp_path / NAME, "git lfs pull"):
            get(tmp_path)
    assert not (cache / "pins.json").exists()


# ---------------------------------------------------------------------------------------------- offline, full disk
@pytest.mark.parametrize(("setting", "reason"), [
    ({"status": 404}, "404"), ({"status": 401}, "401"), ({"status": 503}, "503"),
    ({"content_type": "text/html; charset=utf-8"}, "web page"), ({"delay": 1.0}, "no answer")])
def test_a_server_that_does_not_give_the_file(server, cache, monkeypatch, setting, reason):
    monkeypatch.setattr(downloads, "CONNECT_SECONDS", 0.2 if "delay" in setting else 8)
    vars(server).update(setting)
    with refuses("unfetched", server.address, reason, "--from FOLDER"):
        get(server.address)
    assert len(server.requests) == 1 and not cache.exists()  # no retries


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://", "https://[", "http://a.example:99999/"])
def test_nobody_listens(address):
    start = time.monotonic()
    with refuses("unfetched", address.rstrip("/"), "--from FOLDER"):
        get(address)
    assert time.monotonic() - start < 2


def test_a_name_that_nobody_looks_up(monkeypatch):
    monkeypatch.setattr(downloads, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1.0))  # a resolver that has no network
    start = time.monotonic()
    with refuses("unfetched", "huggingface.co", "no answer", "--from FOLDER"):
        get(None)
    assert time.monotonic() - start < 0.9


def test_offline_by_wish_asks_nobody(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with refuses("unfetched", "HF_HUB_OFFLINE", "--from FOLDER"):
        get(server.address)
    assert not server.requests
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    get(server.address)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    get(server.address)  # it is here already


def test_a_disk_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VTOONIFY_CACHE", str(tmp_path / "file"))
    with refuses("unwritable", tmp_path / "file", "VTOONIFY_CACHE"):
        get(server.address)
    with refuses("unwritable", "a", "No space left"), downloads.disk_errors(Path("a")):
        raise OSError(errno.ENOSPC, "No space left on device")
