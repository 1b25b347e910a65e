"""`vtoonify portrait`: photographs drawn out of themselves, from the file to the file."""

from __future__ import annotations

import numpy as np
import pytest
from people import HOPPER, photograph
from PIL import Image

from vtoonify_lib.apps import cli
from vtoonify_lib.config import VToonifyError
from vtoonify_lib.studio import portraits


@pytest.fixture(scope="module")
def artist():
    """A portraitist who knows where the face of the tests is."""
    try:
        found = portraits.Portraitist()
    except VToonifyError as error:
        pytest.skip(str(error))
    irises = np.stack([HOPPER[36:42].mean(0), HOPPER[42:48].mean(0)])
    patch = pytest.MonkeyPatch()
    patch.setattr(found.reader, "_marks",
                  lambda source, photo: (HOPPER, irises) if photo.std() > 20 else "no face was found")
    yield found
    patch.undo()


def test_a_photograph_is_drawn(artist):
    drawn = artist.draw(photograph(), size=300)
    assert drawn.dtype == np.uint8 and drawn.std() > 30 and 200 < max(drawn.shape[:2]) <= 300
    other = artist.draw(photograph(), "comic", 0.8, 0.9, 300)
    assert other.shape == drawn.shape and np.abs(other.astype(int) - drawn).mean() > 3


def test_the_finder_sees_what_was_marked_by_hand():
    """Without any stand-in: landmarks where they are, irises found, and eyes that are painted."""
    try:
        reader = portraits.PhotoReader()
    except VToonifyError as error:
        pytest.skip(str(error))
    fit, parsing = reader(photograph(), 480)
    assert parsing.shape == (portraits.PARSED, portraits.PARSED, 19)
    found = reader.finder.faces(photograph())[0]
    inner = slice(27, 68)  # the studio's jaw differs from the hand-marked one
    bias = (found.landmarks - HOPPER)[inner].mean(0) / np.hypot(*(HOPPER[42:48].mean(0) - HOPPER[36:42].mean(0)))
    assert np.abs(bias).max() < 0.04 and not fit.refusals
    assert np.abs(fit.irises - np.stack([fit.landmarks[36:42].mean(0), fit.landmarks[42:48].mean(0)])).max() < 15


def test_photographs_are_read_with_the_net_that_knows_them():
    """The flag beside Grace Hopper is hair to a net of renders, and half as much of it to the one of photographs."""
    try:
        readers = [portraits.PhotoReader(bundle) for bundle in ("film", "studio-t")]
    except VToonifyError as error:
        pytest.skip(str(error))
    hair = []
    for reader in readers:
        fit, parsing = reader(photograph(), 480)
        rows, columns = np.mgrid[:portraits.PARSED, :portraits.PARSED]
        k = portraits.PARSED / fit.size
        nose, chin = k * fit.landmarks[27], k * fit.landmarks[8]
        beside = (np.hypot(columns - nose[0], rows - nose[1]) > 3 * k * fit.eye) & (rows < chin[1])
        hair.append(parsing[..., 17][beside].mean())
    assert hair[0] < 0.7 * hair[1]


def test_the_degrees_are_those_asked_for(artist):
    """Structure 0 and colour 0 give the photograph; what suits the person is neither."""
    nothing, suited = (artist.draw(photograph(), structure=degree, color=0, size=240) for degree in (0, None))
    plain = artist.reader.fitter.fit(photograph(), HOPPER, None, 240)
    rows, columns = (np.flatnonzero((plain.covered > 0.5).any(axis)) for axis in (1, 0))
    photo = plain.photo[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] * 255
    assert np.abs(nothing - photo).mean() < 1.5 < np.abs(suited - photo).mean()


def test_small_photographs_are_not_blown_up(artist):
    small = np.asarray(Image.fromarray(photograph()).resize((256, 300)))
    patch = pytest.MonkeyPatch()
    patch.setattr(artist.reader, "_marks", lambda source, photo: (HOPPER / 2, None))
    try:
        assert max(artist.draw(small).shape[:2]) <= portraits.MOST_ENLARGED * 300
    finally:
        patch.undo()


def test_mistakes_get_a_sentence(artist):
    with pytest.raises(VToonifyError, match="no look 'oil'"):
        artist.draw(photograph(), "oil")
    for size in (-5, 0, 127, 99999):
        with pytest.raises(VToonifyError, match=f"the size is {size}"):
            artist.draw(photograph(), size=size)
    with pytest.raises(VToonifyError, match="no face was found; take one"):
        artist.draw(np.full((200, 200, 3), 90, np.uint8))


def test_the_command(artist, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(portraits, "Portraitist", lambda bundle: artist)
    source, out = tmp_path / "me.png", tmp_path / "film.jpg"
    Image.fromarray(photograph()).save(source)
    assert cli.main(["portrait", str(source), str(out), "--size", "240"]) == 0
    assert Image.open(out).size[1] <= 240 and "film.jpg" in capsys.readouterr().out
    assert cli.main(["portrait", str(source), str(out), "--structure", "2"]) == 2
    assert "structure degree is 2" in capsys.readouterr().err
    assert cli.main(["portrait", str(source), str(tmp_path / "film.mp4")]) == 2
