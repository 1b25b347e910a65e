"""The bundle `looks`: it draws what its names, codes and pictures promise."""
from __future__ import annotations

import numpy as np
import pytest
from people import photograph

from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.media.images import read_image
from vtoonify_lib.studio.codes import style_codes
from vtoonify_lib.studio.photo_looks import LOOKS
from vtoonify_lib.styles.request import Look


@pytest.fixture(scope="module")
def toonifier():
    return Toonifier.load("looks", "cpu")


@pytest.fixture(scope="module")
def draw(toonifier):
    """(style, structure, color) → the photograph drawn, and the photograph, float."""
    face = toonifier.face_in(photograph())

    def drawn(style, structure, color):
        look = toonifier.resolve(Look(style, structure=structure, color=color))
        picture = toonifier.painter(toonifier.style_code(face.aligned, look), look)(face.crop[None])[0]
        return picture.astype(float), face.crop.astype(float)

    return drawn


def test_codes_are_those_of_the_looks_as_they_are_drawn(toonifier):
    """Whoever changes a look's exemplars has to train this bundle again, or its names mean something else."""
    table = toonifier.styles
    wanted = style_codes(table.table.shape[-1], photographs=True)
    assert np.allclose(table.table, wanted[:-1], atol=1e-5) and np.allclose(table.null_code, wanted[-1], atol=1e-5)
    assert table.names == [f"{look}-{number:02d}" for look in LOOKS for number in range(24)]


def test_every_style_has_its_picture(toonifier):
    pictures = {name: read_image(toonifier.styles.picture(name)) for name in toonifier.styles.names}
    assert all(picture.shape == (256, 256, 3) for picture in pictures.values())
    assert np.abs(pictures["comic-07"].astype(float) - pictures["film-07"]).mean() > 3


@pytest.mark.parametrize("look", LOOKS)
def test_a_face_goes_from_its_photograph_to_the_style(draw, look):
    """Of 255: no degree is the photograph, structure moves it far and evenly, colour alone a little."""
    far = []
    for structure, color in ((0, 0), (0, 1), (0.5, 0), (1, 0)):
        picture, photo = draw(look, structure, color)
        far.append(np.abs(picture - photo).mean())
    assert far[0] < 2 and far[0] < far[1] < far[2] < far[3] and far[3] > 8


def test_a_comic_inks_and_flattens(draw):
    """Beside film, skin has less fine detail and lines are darker; measured where Grace Hopper's face is."""
    film, comic = (draw(look, 1, 0)[0].mean(-1)[200:520, 250:520] for look in ("film", "comic"))
    assert np.percentile(comic, 1) < np.percentile(film, 1)
    fine = [np.median(np.abs(np.diff(picture, axis=1))) for picture in (film, comic)]
    assert fine[1] < fine[0]
