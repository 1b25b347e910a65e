"""Fetch published files: from their Hugging Face repository, from any address, or from a folder of the user's.

A file keeps the hash it had when it was first seen: its sha256 goes into `pins.json`, and a different file under the
same name is refused from then on, wherever it comes from. What was received so far stays when a download breaks and is
continued next time. Being offline is answered at once, with what to do instead. Which files exist, their licence and
what they become is in `published`; nothing here opens them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from ..config import VToonifyError

HUB = "https://huggingface.co"
HUB_VARIABLE = "HF_ENDPOINT"            # environment variable: a mirror of the hub, as its own library reads it
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"     # environment variable: never try the network
CACHE_VARIABLE = "VTOONIFY_CACHE"       # environment variable: where to keep downloads and what is made of them
CONNECT_SECONDS = 8.0                   # from asking for a file to its first byte, redirects and all
STALL_SECONDS = 30.0                    # without a byte
CHUNK = 1 << 20
SPARE_BYTES = 1 << 26                   # left free on the disk
PINS = "pins.json"
LFS_POINTER = b"version https://git-lfs"  # what a clone without Git LFS has instead of a large file

Result = TypeVar("Result")


@dataclass(frozen=True)
class Fetched:
    """A file that is here, complete and known.

    path    where it lies: in the cache, or in the user's folder;  name: its path in the repository
    bytes, sha256
    new     True when it was seen for the first time, and its hash pinned
    """

    path: Path
    name: str
    bytes: int
    sha256: str
    new: bool

    def __str__(self) -> str:
        known = "pinned now" if self.new else "as pinned"
        return f"{self.name}: {self.bytes / 1e6:.1f} MB, sha256 {self.sha256} ({known})"


def cache_folder() -> Path:
    """$VTOONIFY_CACHE, or `vtoonify` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache). It need not exist."""
    own = os.environ.get(CACHE_VARIABLE)
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vtoonify"


def fetch(name: str, repository: str, source: str | Path | None = None, cache: str | Path | None = None,
          progress: bool = True) -> Fetched:
    """One file of a repository, on this machine.

    name        path in the repository: "models/encoder.pt"
    repository  "owner/name" on Hugging Face
    source      None for Hugging Face; a folder laid out like the repository, its first folder (`models/`) with or
                without; or an address (http, https) that `name` is appended to
    cache       folder for downloads and pins, default :func:`cache_folder`. Files of a folder are used where they lie
    Raises VToonifyError for a file that is not there, cannot be had, is incomplete, or is not the one first seen.
    """
    cache = Path(cache) if cache else cache_folder()
    here = cache / "files" / name
    if source is not None and not is_address(source):
        return _checked(in_folder(Path(source).expanduser(), name), name, cache)
    if not here.is_file():
        _download(_address(name, repository, source), name, here, progress)
    return _checked(here, name, cache)


def is_address(source: str | Path) -> bool:
    """True for http and https addresses; anything else is a folder."""
    return str(source).lower().startswith(("http://", "https://"))


def in_folder(folder: Path, name: str) -> Path:
    """Path of a repository's file in a folder of the user's. VToonifyError when it is not there."""
    places = [folder / name, folder / name.partition("/")[2]]
    for place in places:
        if place.is_file():
            return place
    if not folder.is_dir():
        raise VToonifyError(f"{folder} is not a folder; give the folder with the published files, or an address that "
                            "begins with https://")
    raise VToonifyError(f"{folder} has no {name}; it was looked for at {' and at '.join(map(str, places))}")


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


def discard(fetched: Fetched, cache: str | Path | None = None) -> None:
    """Forget a file that turned out to be useless: its pin if it was new, and the file itself if it was downloaded."""
    cache = Path(cache) if cache else cache_folder()
    if fetched.new:
        write_json(cache / PINS, {name: pin for name, pin in _pins(cache).items() if name != fetched.name})
    if fetched.path == cache / "files" / fetched.name:
        fetched.path.unlink(missing_ok=True)


# ---------------------------------------------------------------------------------------------- pins
def _checked(path: Path, name: str, cache: Path) -> Fetched:
    """The file with its hash, pinned when it is seen for the first time and held against the pin later."""
    try:
        with open(path, "rb") as file:
            head = file.read(len(LFS_POINTER))
        digest, size = sha256_of(path), path.stat().st_size
    except OSError as error:
        raise VToonifyError(f"{path} cannot be read ({error.strerror})") from error
    if head == LFS_POINTER or not size:
        raise VToonifyError(f"{path} only stands for the file, it does not hold it: the folder was cloned without Git "
                            "LFS, or copied incompletely; run `git lfs pull` there, or download the file itself")
    pins = _pins(cache)
    pin = pins.get(name)
    if pin is None:
        write_json(cache / PINS, {**pins, name: {"sha256": digest, "bytes": size}})
    elif pin["sha256"] != digest:
        raise VToonifyError(f"{path} is refused: it has {size} bytes and sha256 {digest[:16]}…, but {name} had "
                            f"{pin['bytes']} bytes and {pin['sha256'][:16]}… when it was first seen. It is damaged or "
                            f"was changed: delete it; or, if you know why, delete its entry in {cache / PINS}")
    return Fetched(path, name, size, digest, new=pin is None)


def _pins(cache: Path) -> dict[str, Any]:
    path = cache / PINS
    if not path.exists():
        return {}
    try:
        pins = json.loads(path.read_text(encoding="utf-8"))
        if all(isinstance(pin["sha256"], str) and isinstance(pin["bytes"], int) for pin in pins.values()):
            return pins
        raise ValueError("an entry without sha256 or bytes")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        # Not started afresh: whoever can spoil this file could then swap the others unseen.
        raise VToonifyError(f"{path} cannot be read ({error}); restore it, or delete it to trust the files as they "
                            "are now") from error


# ---------------------------------------------------------------------------------------------- download
def _address(name: str, repository: str, source: str | Path | None) -> str:
    """Where a file is on the network."""
    base = source or f"{os.environ.get(HUB_VARIABLE) or HUB}/{repository}/resolve/main"
    return f"{str(base).rstrip('/')}/{urllib.parse.quote(name)}"


def _download(address: str, name: str, here: Path, progress: bool) -> None:
    """Bring a file to `here`, going on where an earlier attempt stopped. It has its name only when it is complete."""
    part, note = here.with_name(f"{here.name}.part"), here.with_name(f"{here.name}.part.json")
    with disk_errors(here):
        here.parent.mkdir(parents=True, exist_ok=True)
    start, validator = _resumable(part, note, address)
    try:
        answer, published = _open(address, start, validator)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # what we have is not the beginning of what is there now
            part.unlink()
            return _download(address, name, here, progress)
        raise VToonifyError(_http_sentence(address, error.code)) from error
    with answer:
        if answer.status == 200:
            start = 0
        total = _total(answer, start, address)
        with disk_errors(here):
            _check_space(here, name, total, start)
            note.write_text(json.dumps({"address": address, "validator": _validator(answer)}), encoding="utf-8")
        received = _receive(answer, part, name, start, total, progress)
    if total is not None and received != total:
        raise VToonifyError(_broken_sentence(name, received, total, "the server stopped sending"))
    if published and sha256_of(part) != published:
        part.unlink()
        raise VToonifyError(f"{name} was received with another sha256 than its repository publishes "
                            f"({published[:16]}…); it was thrown away: run the same again")
    os.replace(part, here)
    note.unlink(missing_ok=True)


def _resumable(part: Path, note: Path, address: str) -> tuple[int, str | None]:
    """→ bytes that are here already, and what shows whether it is still the same file there; (0, None): begin anew."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if part.is_file() and known["address"] == address and known["validator"]:
            return part.stat().st_size, str(known["validator"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return 0, None


def _validator(answer: HTTPResponse) -> str | None:
    """What If-Range takes: a strong ETag, or the date of the last change."""
    etag = answer.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, never out of https, and keeps the sha256 that the hub sends along with them."""

    sha256: str | None = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it redirects to {newurl[:100]}, out of https")
        linked = (headers.get("X-Linked-ETag") or "").strip('"').lower()
        if len(linked) == 64 and set(linked) <= set("0123456789abcdef"):
            self.sha256 = linked
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(address: str, start: int, validator: str | None) -> tuple[HTTPResponse, str | None]:
    """→ the answer, and the sha256 that the hub says the file has, if it does. HTTPError for a refusal."""
    if os.environ.get(OFFLINE_VARIABLE, "").lower() in ("1", "true", "yes", "on"):
        raise VToonifyError(_offline_sentence(address, f"{OFFLINE_VARIABLE} is set"))
    headers = {"User-Agent": "vtoonify-lib", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        request = urllib.request.Request(address, headers=headers)
        answer = _within(CONNECT_SECONDS, lambda: opener.open(request, timeout=STALL_SECONDS))
    except urllib.error.HTTPError:
        raise
    except (OSError, HTTPException, ValueError) as error:  # URLError is an OSError
        reason = getattr(error, "reason", None) or error
        raise VToonifyError(_offline_sentence(address, reason)) from error
    if answer.headers.get_content_type() == "text/html":
        answer.close()
        raise VToonifyError(f"{address} answers with a web page, not with a file; open it in a browser to see why, "
                            "download the file there and give its folder with --from FOLDER")
    return answer, redirects.sha256


def _within(seconds: float, work: Callable[[], Result]) -> Result:
    """The result of `work`, or TimeoutError. In a thread, because looking up a host name knows no timeout."""
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = work()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def _total(answer: HTTPResponse, start: int, address: str) -> int | None:
    """Size of the whole file, as far as the server says. VToonifyError when it sends the wrong part of it."""
    if answer.status == 206:
        span, _, total = (answer.headers.get("Content-Range") or "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(start):
            raise VToonifyError(f"{address} sent another part of the file than was asked for; delete the .part file "
                                "and run the same again")
        return int(total) if total.isdigit() else None
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _check_space(here: Path, name: str, total: int | None, start: int) -> None:
    free = shutil.disk_usage(here.parent).free
    if total is not None and total - start + SPARE_BYTES > free:
        raise VToonifyError(f"{name} needs {(total - start) / 1e6:.0f} MB more and the disk of {here.parent} has "
                            f"{free / 1e6:.0f} MB free; free some space, or set {CACHE_VARIABLE} to another disk")


def _receive(answer: HTTPResponse, part: Path, name: str, start: int, total: int | None, progress: bool) -> int:
    """Append what comes to the part; → its size then. What was received stays there whatever happens."""
    received = start
    with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=name.rpartition("/")[2],
              disable=not progress) as bar, disk_errors(part), open(part, "ab" if start else "wb") as file:
        while total is None or received < total:
            try:
                data = answer.read(CHUNK)
            except (OSError, HTTPException) as error:
                raise VToonifyError(_broken_sentence(name, received, total, error)) from error
            if not data:
                break
            file.write(data)
            received += len(data)
            bar.update(len(data))
    return received


# ---------------------------------------------------------------------------------------------- sentences
def _offline_sentence(address: str, reason: Any) -> str:
    return (f"{address} cannot be reached ({reason}); if this machine is offline, copy the files into a folder laid "
            "out like their repository and give it with --from FOLDER")


def _http_sentence(address: str, code: int) -> str:
    if code == 404:
        return f"{address} is not there (404); look up the file in a browser, or give another source with --from"
    what = "asks for a login" if code in (401, 403) else "does not send the file"
    return f"{address} {what} (HTTP {code}); try again later, or give another source with --from"


def _broken_sentence(name: str, received: int, total: int | None, reason: Any) -> str:
    of = f" of {total / 1e6:.1f}" if total is not None else ""
    return (f"{name} is incomplete: the connection broke after {received / 1e6:.1f}{of} MB ({reason}); run the same "
            "again: what came is kept, and continued if the server allows that")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A disk that is full or may not be written becomes one sentence."""
    try:
        yield
    except OSError as error:
        ours = cache_folder() in path.parents
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            other = f"set {CACHE_VARIABLE} to a folder on another disk" if ours else "choose another disk"
            raise VToonifyError(f"the disk is full, {path} could not be written; free some space and run the same "
                                f"again, or {other}") from error
        other = f"set {CACHE_VARIABLE} to a folder that can" if ours else "choose another folder"
        raise VToonifyError(f"{path} cannot be written ({error.strerror or error}); {other}") from error
