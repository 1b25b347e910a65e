"""Pictures in and out: any file, array or Pillow picture → uint8 RGB, and safely back to disk.

Inside the library pictures are float BCHW in [−1,1]; `to_tensor` and `to_image` are the only two conversions.
Faces, crops and networks are elsewhere.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..config import VToonifyError

FINEST = 1.2  # px, standard deviation of the Gaussian beyond which detail counts as finest
PAPER = (255, 255, 255)  # what shows through transparent pixels
VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp"}
JPEG = {"quality": 95, "subsampling": 0}
QUALITY = {".jpg": JPEG, ".jpeg": JPEG, ".webp": {"quality": 95}}


def to_tensor(rgb: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 RGB [H,W,3] or [B,H,W,3] → float32 [B,3,H,W] in [−1,1]."""
    batch = torch.from_numpy(np.array(rgb)).to(device)  # a copy: arrays from Pillow are read-only
    batch = batch[None] if batch.ndim == 3 else batch
    return batch.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_image(batch: torch.Tensor) -> np.ndarray:
    """Float [B,3,H,W] (or [3,H,W]) in [−1,1] → uint8 [B,H,W,3] (or [H,W,3]), clamped and rounded to nearest."""
    pixels = batch.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.movedim(-3, -1).cpu().numpy())


def sharpened(pictures: np.ndarray, amount: float) -> np.ndarray:
    """Unsharp mask: amount times what is finer than FINEST px is added to pictures, uint8 [B,H,W,3].

    A network that learns from drawings draws their finest detail too weakly, for it averages over what it cannot know.
    """
    if not amount:
        return pictures
    return np.stack([cv2.addWeighted(picture, 1 + amount, cv2.GaussianBlur(picture, (0, 0), FINEST), -amount, 0)
                     for picture in pictures])


def read_image(source: str | Path | np.ndarray | Image.Image) -> np.ndarray:
    """A picture as uint8 RGB [H,W,3], upright (EXIF rotation applied).

    source: path; array [H,W], [H,W,1], [H,W,3] or [H,W,4] of uint8, uint16, bool or float in [0,1]; Pillow picture.
    Grey, palette, CMYK and 16-bit pictures are converted, transparency shows white, animations give their first frame.
    Raises VToonifyError that says what is wrong with a missing, empty, damaged or foreign file.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pillow(source)
    path = Path(source)
    check_source(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return _from_pillow(picture)
    except UnidentifiedImageError as error:
        hint = "it is a video: use `vtoonify video`" if path.suffix.lower() in VIDEO_SUFFIXES else \
            "expected JPEG, PNG, WebP, TIFF, BMP or GIF"
        raise VToonifyError(f"{path} is not a picture that can be read; {hint}", code="unreadable") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise VToonifyError(f"{path} has more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels; "
                            "make it smaller first", code="unreadable") from error
    except VToonifyError:
        raise
    except Exception as error:  # Pillow knows many for a damaged file: SyntaxError, TypeError, struct.error
        raise VToonifyError(f"{path} is damaged and cannot be read ({str(error).partition(chr(10))[0]})",
                            code="unreadable") from error


def check_source(path: Path) -> None:
    """Raise VToonifyError when an input file is missing, a folder, empty or not readable."""
    if not path.exists():
        raise VToonifyError(f"{path} does not exist", code="missing")
    if path.is_dir():
        raise VToonifyError(f"{path} is a folder; give one file", code="unreadable")
    if not os.access(path, os.R_OK):
        raise VToonifyError(f"{path} may not be read; check its permissions", code="unreadable")
    if path.stat().st_size == 0:
        raise VToonifyError(f"{path} is empty (0 bytes); was it copied completely?", code="unreadable")


def check_output(dst: str | Path, source: str | Path | None = None, endings: Collection[str] = ()) -> Path:
    """The output path, or VToonifyError when its folder is missing or read-only, when it is the input itself, or when
    its name ends in none of `endings`, if there are any."""
    dst = Path(dst)
    if dst.is_dir():
        raise VToonifyError(f"{dst} is a folder; give a file name for the output", code="unwritable")
    if not dst.parent.is_dir():
        raise VToonifyError(f"the folder {dst.parent} does not exist; create it first", code="unwritable")
    if not os.access(dst.parent, os.W_OK):
        raise VToonifyError(f"the folder {dst.parent} is read-only; choose another one for the output",
                            code="unwritable")
    if source is not None and dst.exists() and Path(source).exists() and os.path.samefile(dst, source):
        raise VToonifyError(f"output and input are the same file ({dst}); choose another name for the output",
                            code="unwritable")
    if endings and dst.suffix.lower() not in endings:
        raise VToonifyError(f"{dst} cannot be written as '{dst.suffix or 'a file without ending'}'; give a name that "
                            f"ends in {', '.join(endings)}", code="unwritable")
    return dst


def check_picture_name(dst: str | Path) -> Path:
    """The path, or VToonifyError when its ending is not that of a picture format."""
    dst, known = Path(dst), Image.registered_extensions()
    if known.get(dst.suffix.lower()) not in Image.SAVE:
        raise VToonifyError(f"{dst}: a picture cannot be written as '{dst.suffix or 'a file without ending'}'; "
                            "use .png, .jpg or .webp", code="unwritable")
    return dst


def write_image(dst: str | Path, rgb: np.ndarray) -> Path:
    """Write uint8 RGB [H,W,3]; the format follows the name. Appears under its final name only when complete."""
    dst = check_picture_name(check_output(dst))
    suffix = dst.suffix.lower()
    part = dst.with_name(f".{dst.stem}.{secrets.token_hex(4)}{suffix}")
    try:
        Image.fromarray(rgb).save(part, **QUALITY.get(suffix, {}))
        os.replace(part, dst)
    except OSError as error:
        raise VToonifyError(f"{dst} could not be written ({error.strerror or error})", code="unwritable") from error
    finally:
        part.unlink(missing_ok=True)
    return dst


# ---------------------------------------------------------------------------------------------- conversions
def _from_pillow(picture: Image.Image) -> np.ndarray:
    picture.seek(0) if getattr(picture, "is_animated", False) else None
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        return _from_array(np.asarray(picture))
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, (*PAPER, 255))
        picture = Image.alpha_composite(paper, picture)
    return np.asarray(picture.convert("RGB")).copy()


def _from_array(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        raise VToonifyError(f"picture array has shape {pixels.shape}; expected [H,W], [H,W,3] or [H,W,4]")
    if pixels.dtype != np.uint8:
        pixels = (pixels * _to_255(pixels) + 0.5).astype(np.uint8)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float32) / 255
        pixels = (pixels[..., :3] * alpha + np.array(PAPER) * (1 - alpha) + 0.5).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _to_255(pixels: np.ndarray) -> float:
    """The factor that brings an array of another type than uint8 to 0 … 255, judged by its type and range."""
    low, high = float(pixels.min()), float(pixels.max())
    if pixels.dtype == bool or (pixels.dtype.kind == "f" and 0 <= low and high <= 1):
        return 255.0
    if pixels.dtype.kind in "iuf" and 0 <= low and high <= 255 and pixels.dtype.itemsize > 2:
        return 1.0
    if pixels.dtype.kind in "iuf" and 0 <= low and high <= 65535:
        return 1 / 257
    raise VToonifyError(f"picture array of {pixels.dtype} spans {low:g} … {high:g}; expected uint8, uint16, or float "
                        "in 0 … 1")
