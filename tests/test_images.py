"""Pictures in and out: every kind of file and array becomes the same upright RGB, and bad ones say what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from errors import refuses
from people import scene
from PIL import Image

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.media.images import check_output, read_image, sharpened, to_image, to_tensor, write_image


def picture_file(path, kind):
    """The test scene in a file of the given kind, all of them the same picture to the eye."""
    rgb = Image.fromarray(scene())
    grey = np.asarray(rgb.convert("L"))
    if kind == "grey":
        rgb.convert("L").save(path)
    elif kind == "grey16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    elif kind in ("rgba", "palette", "la"):
        clear = Image.fromarray(np.dstack([scene(), np.full(grey.shape, 255, np.uint8)]))
        clear.convert({"rgba": "RGBA", "palette": "P", "la": "LA"}[kind]).save(path)
    elif kind == "cmyk":
        rgb.convert("CMYK").save(path)
    elif kind == "gif":
        rgb.save(path, save_all=True, append_images=[Image.new("RGB", rgb.size)], duration=100)
    elif kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was held upright: turn a quarter clockwise to look at it
        rgb.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    else:
        rgb.save(path)
    return path


@pytest.mark.parametrize(("name", "kind"), [
    ("a.png", "rgb"), ("a.jpg", "rgb"), ("a.webp", "rgb"), ("a.bmp", "rgb"), ("a.png", "grey"), ("a.png", "grey16"),
    ("a.tif", "grey16"), ("a.png", "rgba"), ("a.png", "palette"), ("a.png", "la"), ("a.jpg", "cmyk"), ("a.gif", "gif"),
    ("a.jpg", "exif"), ("wrong-ending.png", "rgb")])
def test_pictures_of_every_kind_are_toonified(toonifier, tmp_path, name, kind):
    path = picture_file(tmp_path / name, kind)
    rgb = read_image(path)
    assert rgb.dtype == np.uint8 and rgb.shape == (240, 320, 3)
    grey, truth = rgb.astype(float).mean(2), scene().astype(float).mean(2)
    assert np.abs(grey - truth).mean() < 8
    picture = toonifier.image(path)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and picture.std() > 1


def test_arrays_and_pillow_pictures(toonifier):
    from_array = toonifier.image(scene())
    assert np.array_equal(from_array, toonifier.image(Image.fromarray(scene())))
    for other in (scene().astype(np.uint16) * 257, (scene() / 255.0).astype(np.float32), scene().astype(np.int64)):
        assert np.array_equal(read_image(other), scene())
    with pytest.raises(VToonifyError, match="spans -1 … 1"):
        read_image(np.linspace(-1, 1, 48).reshape(4, 4, 3))
    with pytest.raises(VToonifyError, match=r"shape \(3, 4, 4, 3\)"):
        read_image(np.zeros((3, 4, 4, 3)))


def test_transparency_shows_white():
    assert (read_image(np.zeros((4, 4, 4), np.uint8)) == 255).all()
    assert (read_image(Image.new("RGBA", (4, 4))) == 255).all()


def test_bad_picture_files(tmp_path):
    whole = picture_file(tmp_path / "whole.jpg", "rgb").read_bytes()
    for name, data, fact in [("empty.jpg", b"", "0 bytes"), ("text.jpg", b"hello\n" * 50, "JPEG"),
                             ("cut.jpg", whole[: len(whole) // 2], ""), ("film.mp4", b"\0" * 99, "vtoonify video")]:
        (tmp_path / name).write_bytes(data)
        with refuses("unreadable", tmp_path / name, fact):
            read_image(tmp_path / name)
    with refuses("missing", tmp_path / "none.png"):
        read_image(tmp_path / "none.png")
    with refuses("unreadable", tmp_path):
        read_image(tmp_path)


def test_too_many_pixels(tmp_path, monkeypatch):
    path = picture_file(tmp_path / "a.png", "rgb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with refuses("unreadable", path, "million pixels"):
        read_image(path)


def test_write_image_leaves_nothing_half_written(tmp_path, monkeypatch):
    path = write_image(tmp_path / "a.png", scene())
    assert np.array_equal(read_image(path), scene())
    monkeypatch.setattr(Image.Image, "save", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_image(path, scene()[:8])
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and np.array_equal(read_image(path), scene())


def test_bad_outputs(tmp_path, monkeypatch):
    path = picture_file(tmp_path / "a.png", "rgb")
    for dst, fact in [(tmp_path / "none" / "b.png", tmp_path / "none"), (tmp_path, tmp_path), (path, path)]:
        with refuses("unwritable", fact):
            check_output(dst, path)
    with refuses("unwritable", "'.xyz'"):
        write_image(tmp_path / "b.xyz", scene())
    monkeypatch.setattr("os.access", lambda *a: False)
    with refuses("unwritable", tmp_path):
        check_output(tmp_path / "b.png", path)


def test_tensor_conversions_are_inverse():
    rgb = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    assert np.array_equal(to_image(to_tensor(rgb))[0], rgb)
    assert to_tensor(rgb).min() == -1 and to_tensor(rgb).max() == 1
    assert to_image(torch.tensor([[[-9.0, 9.0]]] * 3)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_sharpening_adds_what_is_fine_and_nothing_else():
    """A wave of 4 px grows by nearly all of the amount, one of 40 px hardly; flat parts stay as they are."""
    x = np.arange(160)
    waves = {length: np.repeat((127 + 40 * np.sin(2 * np.pi * x / length)).astype(np.uint8)[None], 20, 0)
             for length in (4, 40)}
    for length, low, high in ((4, 1.15, 1.2), (40, 0.99, 1.02)):
        picture = np.repeat(waves[length][..., None], 3, -1)
        grown = sharpened(picture[None], 0.2)[0]
        assert low < grown[:, 20:-20].std() / picture[:, 20:-20].std() < high
    flat = np.full((2, 9, 9, 3), 200, np.uint8)
    assert np.array_equal(sharpened(flat, 0.5), flat) and sharpened(flat, 0.0) is flat
