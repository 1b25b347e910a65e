"""Fetch published files: from their Hugging Face repository, from any address, or from a folder of the user's.

The sha256 that a file had when it was first seen is kept in `pins.json`, and another file under its name is refused
from then on. What came of a broken download is continued, which `huggingface_hub` 2.4 and `pooch` 1.9 do not do.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from tqdm.auto import tqdm

from ..config import VToonifyError

HUB = "https://huggingface.co"  # or a mirror of it: $HF_ENDPOINT, as its own library reads it
CONNECT_SECONDS = 8.0           # from asking for a file to its first byte, redirects and all
STALL_SECONDS = 30.0            # without a byte
CHUNK = 1 << 20
PINS = "pins.json"
SMALLEST = 200                  # bytes of a file; what a clone without Git LFS has in its place has 130


@dataclass(frozen=True)
class Fetched:
    """A file that is here and complete; `name`: its path in the repository; `new`: whether its hash was pinned now."""

    path: Path
    name: str
    sha256: str
    new: bool

    def __str__(self) -> str:
        known = "pinned now" if self.new else "as pinned"
        return f"{self.name}: {self.path.stat().st_size / 1e6:.1f} MB, sha256 {self.sha256} ({known})"


def cache_folder() -> Path:
    """$VTOONIFY_CACHE, or `vtoonify` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache). It need not exist."""
    own = os.environ.get("VTOONIFY_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vtoonify"


def fetch(name: str, repository: str, source: str | Path | None = None, progress: bool = True) -> Fetched:
    """One file of a repository, on this machine.

    name        path in the repository: "models/encoder.pt"
    repository  "owner/name" on Hugging Face
    source      None for Hugging Face; a folder laid out like the repository, its first folder (`models/`) with or
                without; or an address (http, https) that `name` is appended to
    Downloads and pins are in :func:`cache_folder`; files of a folder are used where they lie.
    Raises VToonifyError for a file that is not there, cannot be had, is incomplete, or is not the one first seen.
    """
    path = cache_folder() / "files" / name
    if source is not None and not is_address(source):
        path = in_folder(Path(source).expanduser(), name)
    elif not path.is_file():
        base = str(source or f"{os.environ.get('HF_ENDPOINT') or HUB}/{repository}/resolve/main")
        _download(f"{base.rstrip('/')}/{quote(name)}", path, progress)
    return _pinned(path, name)


def is_address(source: str | Path) -> bool:
    """True for http and https addresses; anything else is a folder."""
    return str(source).lower().startswith(("http://", "https://"))


def in_folder(folder: Path, name: str) -> Path:
    """Path of a repository's file in a folder of the user's. VToonifyError when it is not there."""
    if not folder.is_dir():
        raise VToonifyError(f"{folder} is not a folder; give one with the published files, or an https:// address",
                            code="missing")
    for place in (folder / name, folder / name.partition("/")[2]):
        if place.is_file():
            return place
    raise VToonifyError(f"{folder} has no {name}; it was looked for there with and without its first folder",
                        code="missing")


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Written whole or not at all."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(contents, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, path)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A disk that is full, or may not be read or written, becomes one sentence."""
    try:
        yield
    except OSError as error:
        other = "set VTOONIFY_CACHE to another folder" if cache_folder() in path.parents else "choose another folder"
        raise VToonifyError(f"{path} cannot be read or written ({error.strerror or error}); free some space if the "
                            f"disk is full, or {other}", code="unwritable") from error


def discard(fetched: Fetched) -> None:
    """Forget a file that turned out to be useless: its pin if it was new, and the file itself if it was downloaded."""
    cache = cache_folder()
    if fetched.new:
        pins = json.loads((cache / PINS).read_text(encoding="utf-8"))
        write_json(cache / PINS, {name: pin for name, pin in pins.items() if name != fetched.name})
    if fetched.path == cache / "files" / fetched.name:
        fetched.path.unlink(missing_ok=True)


def _pinned(path: Path, name: str) -> Fetched:
    """The file with its hash, which is pinned when the file is first seen and held against the pin later."""
    with disk_errors(path):
        digest, size = sha256_of(path), path.stat().st_size
    if size < SMALLEST:
        raise VToonifyError(f"{path} has {size} bytes, it only stands for the file: the folder was cloned without Git "
                            "LFS, or copied incompletely; run `git lfs pull` there, or download the file itself",
                            code="unreadable")
    known = cache_folder() / PINS
    try:
        pins = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
        pin = pins.get(name)
    except (OSError, ValueError, AttributeError) as error:
        # Not started afresh: whoever can spoil this file could then swap the others unseen.
        raise VToonifyError(f"{known} cannot be read ({error}); restore it, or delete it to trust the files as "
                            "they are now", code="unreadable") from error
    if pin is None:
        write_json(known, {**pins, name: digest})
    elif pin != digest:
        raise VToonifyError(f"{path} is refused: its sha256 is {digest}, but it was {pin} when {name} was first seen. "
                            "It is damaged or was changed: delete it; or, if you know why, delete its entry in "
                            f"{known}", code="changed")
    return Fetched(path, name, digest, new=pin is None)


def _download(address: str, path: Path, progress: bool) -> None:
    """Bring a file to `path`, going on where an earlier attempt stopped. It has that name only when it is complete."""
    answer, published = _open(address)
    version = published or answer.headers.get("ETag") or answer.headers.get("Last-Modified") or secrets.token_hex(4)
    part = path.with_name(f"{path.name}.{hashlib.sha256(f'{address} {version}'.encode()).hexdigest()[:8]}.part")
    total = int(answer.headers.get("Content-Length") or 0)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        start = part.stat().st_size if part.exists() else 0
        if 0 < start < total:
            answer.close()
            answer, _ = _open(address, start)
        start = start if answer.status == 206 else 0
        with answer, open(part, "ab" if start else "wb") as file, tqdm(
                total=total or None, initial=start, unit="B", unit_scale=True, desc=path.name,
                disable=not progress) as bar:
            for data in _chunks(answer, path.name):
                file.write(data)
                bar.update(len(data))
        if published and sha256_of(part) != published:
            part.unlink()
            raise VToonifyError(f"{path.name} was received with another sha256 than its repository publishes "
                                f"({published}); it was thrown away: run the same again", code="changed")
        os.replace(part, path)


def _chunks(answer: HTTPResponse, name: str) -> Iterator[bytes]:
    """What comes, piece by piece. VToonifyError when it ends too early."""
    left = int(answer.headers.get("Content-Length") or 0)
    try:
        while data := answer.read(CHUNK):
            left -= len(data)
            yield data
        if left > 0:
            raise IncompleteRead(b"", left)
    except (OSError, HTTPException) as error:
        raise VToonifyError(f"{name} is incomplete, the connection broke ({error}); run the same again: what came is "
                            "kept, and continued if the server allows that", code="unfetched") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, never out of https, and keeps the sha256 that the hub sends along with them."""

    sha256: str | None = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise URLError(f"it redirects to {newurl[:100]}, out of https")
        linked = (headers.get("X-Linked-ETag") or "").strip('"')
        self.sha256 = linked if len(linked) == 64 else self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(address: str, start: int = 0) -> tuple[HTTPResponse, str | None]:
    """→ the answer, from byte `start` on if the server can, and the sha256 that the hub says the file has, or None."""
    redirects, found = _Redirects(), Future()

    def ask() -> None:
        try:
            found.set_result(urllib.request.build_opener(redirects).open(request, timeout=STALL_SECONDS))
        except Exception as error:
            found.set_exception(error)

    try:
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
            raise URLError("HF_HUB_OFFLINE is set")
        headers = {"User-Agent": "vtoonify-lib", **({"Range": f"bytes={start}-"} if start else {})}
        request = urllib.request.Request(address, headers=headers)
        threading.Thread(target=ask, daemon=True).start()  # because looking up a host name knows no timeout
        answer = found.result(CONNECT_SECONDS)
        if answer.headers.get_content_type() == "text/html":
            raise URLError("it answers with a web page, not with a file")
    except (OSError, HTTPException, ValueError) as error:
        reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
        raise VToonifyError(f"{address} cannot be fetched ({str(reason) or 'no answer'}); try again later, or, without "
                            "a network, copy the files into a folder laid out like their repository and give it with "
                            "--from FOLDER", code="unfetched") from error
    return answer, redirects.sha256
