"""A data set of photographs: found, fitted, drawn, resumed; read by the same training as renders."""

from __future__ import annotations

import json

import numpy as np
import pytest
from people import HOPPER, photograph
from PIL import Image

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.studio.shards import Pairs
from vtoonify_lib.training import augment, photo_pairs
from vtoonify_lib.training.photo_pairs import Settings, draw_pairs, photographs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two photographs of one face, one without a face, and labels of the two."""
    root = tmp_path_factory.mktemp("photographs")
    hopper = photograph()
    Image.fromarray(hopper).save(root / "b.jpg", quality=95)
    Image.fromarray(hopper[:, ::-1]).save(root / "a.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(root / "nobody.jpg")
    (root / "notes.txt").write_text("no picture")
    mirror = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39,
              38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    other = (HOPPER * [-1, 1] + [hopper.shape[1], 0])[mirror]
    points = np.stack([HOPPER, other, HOPPER])
    irises = np.stack([points[:, 36:42].mean(1), points[:, 42:48].mean(1)], 1)
    np.savez(root / "labels.npz", path=[str(root / name) for name in ("b.jpg", "a.png", "nobody.jpg")],
             found=[True, True, False], points=points, irises=irises)
    return root


def settings(folder, **changes):
    return Settings(**{"photos": (str(folder),), "size": 240, "labels": str(folder / "labels.npz"), **changes})


@pytest.fixture(scope="module")
def pairs(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "pairs"
    try:
        return draw_pairs(out, settings(folder), hold_out=[folder / "b.jpg"], processes=1, progress=False)
    except VToonifyError as error:
        pytest.skip(str(error))


def test_photographs_are_drawn_and_others_refused(pairs, folder):
    assert pairs.ready.tolist() == [0, 1]
    meta = json.loads((pairs.folder / "meta.json").read_text())
    assert meta["people"][0].endswith("b.jpg")  # held-out people come first
    assert (pairs.folder / "hold_out.txt").read_text() == "0\n"
    assert (pairs.folder / "done" / "00000002").read_text() == "no face was found"
    for i in pairs.ready:
        photo, film = np.array(pairs["photo"][i]).astype(int), np.array(pairs["film"][i]).astype(int)
        assert photo.std() > 20 and 1 < np.abs(photo - film).mean() < 40
        assert 0.6 <= pairs["film_structure"][i] <= 0.85
        moved = np.linalg.norm(pairs["film_landmarks"][i] - pairs["photo_landmarks"][i], axis=1)
        assert 0.5 < moved[36:48].mean() < 20


def test_training_reads_them_as_it_reads_renders(pairs):
    batch = augment.load(pairs, pairs.ready, "film")
    assert batch.photo.shape == batch.styled.shape == (2, 3, 240, 240) and batch.parsing.max() < 19


def test_a_finished_data_set_is_not_drawn_again(pairs, folder, monkeypatch):
    monkeypatch.setattr(photo_pairs, "_draw_one", lambda *_: pytest.fail("drawn again"))
    again = draw_pairs(pairs.folder, settings(folder), hold_out=[folder / "b.jpg"], processes=1, progress=False)
    assert again.ready.tolist() == Pairs.open(pairs.folder).ready.tolist() == [0, 1]


def test_an_interrupted_data_set_goes_on(folder, tmp_path, pairs):
    chosen = settings(folder, looks=("film",))
    out = tmp_path / "half"
    draw_pairs(out, chosen, hold_out=[folder / "b.jpg"], processes=1, progress=False)
    (out / "done" / "00000001").unlink()
    film = np.load(out / "film.npy", mmap_mode="r+")
    film[1] = 0
    film.flush()
    assert Pairs.open(out).ready.tolist() == [0]
    again = draw_pairs(out, chosen, hold_out=[folder / "b.jpg"], processes=1, progress=False)
    assert np.array_equal(again["film"][1], pairs["film"][1])


def test_spread_draws_each_photograph_several_times(folder, tmp_path, pairs, monkeypatch):
    """And the exemplars, one of which is drawn here, for the other 23 are drawn alike."""
    one = photo_pairs.exemplar_picture("paint", 3)
    assert one.shape == (256, 256, 3) and one.std() > 20
    monkeypatch.setattr(photo_pairs, "exemplar_picture", lambda look, number, bundle: np.roll(one, number, 1))
    pictures = photo_pairs.write_pictures(tmp_path / "pictures", ["film", "paint"])
    assert len(pictures) == 48 and pictures[24 + 7] == tmp_path / "pictures" / "paint" / "07.jpg"
    assert np.abs(np.array(Image.open(pictures[31])).astype(int) - np.roll(one, 7, 1)).mean() < 4
    chosen = settings(folder, looks=("paint",), drawings=2, spread=True, size=160)
    drawn = draw_pairs(tmp_path / "spread", chosen, processes=1, progress=False)
    assert drawn.ready.tolist() == [0, 1, 2, 3]
    assert drawn.exemplars("paint").shape == (24, 256, 256, 3) and drawn.photographs
    assert (np.array(drawn["paint_style"])[drawn.ready] >= 0).all() and (np.array(pairs["film_style"]) <= 0).all()
    assert len({(float(s), float(c)) for s, c in zip(drawn["paint_structure"], drawn["paint_color"], strict=True)}) > 2


def test_a_damaged_file_does_not_stop_the_others(folder, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_text("not a picture")
    Image.fromarray(photograph()).save(photos / "b.png")
    with np.load(folder / "labels.npz") as labels:
        np.savez(tmp_path / "labels.npz", path=[str(photos / "b.png")], **{
            name: labels[name][:1] for name in ("found", "points", "irises")})
    chosen = Settings((str(photos),), size=160, labels=str(tmp_path / "labels.npz"))
    try:
        drawn = draw_pairs(tmp_path / "out", chosen, processes=1, progress=False)
    except VToonifyError as error:
        pytest.skip(str(error))
    assert drawn.ready.tolist() == [1] and "not a picture" in (tmp_path / "out" / "done" / "00000000").read_text()


def test_mistakes_get_a_sentence(folder, tmp_path, pairs, capsys):
    with pytest.raises(VToonifyError, match="no picture in"):
        photographs([tmp_path])
    with pytest.raises(VToonifyError, match="no look 'oil'"):
        draw_pairs(tmp_path / "x", settings(folder, looks=("oil",)))
    with pytest.raises(VToonifyError, match="was begun with"):
        draw_pairs(pairs.folder, settings(folder, size=320))
    with pytest.raises(VToonifyError, match="was begun with"):  # what was held out would be trained on
        draw_pairs(pairs.folder, settings(folder))
    with pytest.raises(VToonifyError, match="not among the photographs"):
        draw_pairs(tmp_path / "z", settings(folder), hold_out=[folder / "B.JPG"])
    for changes in ({"size": 0}, {"drawings": 0}, {"renders": -3}):
        with pytest.raises(VToonifyError, match="it must be"):
            settings(folder, **changes)
    for option in ("--labels", "--hold-out"):
        assert photo_pairs.main([str(tmp_path / "y"), "--photos", str(folder), option, str(tmp_path / "no.npz")]) == 2
        assert "cannot be read" in capsys.readouterr().err
    assert photo_pairs.main([str(tmp_path / "y"), "--photos", str(tmp_path / "none")]) == 2
    assert "give folders of photographs" in capsys.readouterr().err
