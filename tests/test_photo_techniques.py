"""A comic's flat tones and ink, on shapes whose tones are known. No renderer is needed."""
from types import SimpleNamespace

import numpy as np
import pytest

from vtoonify_lib.studio import photo_techniques
from vtoonify_lib.studio.filters import luma
from vtoonify_lib.studio.photo_looks import COMIC

SIZE, EYE = 160, 60.0


def pen(light: np.ndarray, form: float | np.ndarray = 1.0, points=None) -> SimpleNamespace:
    """A face that fills the picture, of so much light; its form shades nothing unless asked to."""
    everywhere = np.ones((SIZE, SIZE), np.float32)
    nowhere = np.zeros_like(everywhere)
    marks = np.full((68, 2), -500.0) if points is None else points
    return SimpleNamespace(eye=EYE, look=COMIC, skin=everywhere, normal=None, marks=marks,
                           shade=lambda _: np.broadcast_to(np.float32(form), light.shape),
                           masks={"person": everywhere}, region={"eyes": nowhere, "mouth": nowhere, "lips": nowhere})


def parts(*brightness: float) -> np.ndarray:
    """Stripes [S,S] of so much brightness, as broad as each other."""
    return np.repeat(np.float32([brightness]), SIZE, 0).repeat(SIZE // len(brightness), 1)


def drawn(picture: np.ndarray, **more) -> np.ndarray:
    film = np.repeat(picture[..., None], 3, -1).astype(np.float32)
    return luma(photo_techniques.comic(film, pen(picture, **more)))


def middle(picture: np.ndarray, part: int, of: int) -> float:
    return float(np.median(picture[40:-40, int((part + 0.35) * SIZE / of):int((part + 0.65) * SIZE / of)]))


def test_skin_has_two_tones_where_light_falls_slowly():
    """Brightness that falls by a fifth in the light, and by a tenth in the shade: a border between, flat beside it."""
    light = np.concatenate([np.linspace(0.75, 0.68, SIZE // 2), np.linspace(0.50, 0.46, SIZE - SIZE // 2)])
    tones = drawn(np.repeat(light[None].astype(np.float32), SIZE, 0))[SIZE // 2]
    lit, shaded = tones[15:60], tones[100:145]
    assert np.ptp(lit) < 0.5 * np.ptp(light[15:60]) and np.ptp(shaded) < 0.5 * np.ptp(light[100:145])
    assert 0.08 < lit.mean() - shaded.mean() < 0.25


@pytest.mark.parametrize(("part", "changed"), [(0.90, False), (0.66, True)])
def test_skin_is_shaded_below_a_part_of_its_own_brightness_only(part, changed):
    picture = parts(0.6, 0.6 * part)
    step = middle(drawn(picture), 0, 2) - middle(drawn(picture), 1, 2)
    flat = 0.35 * 0.6 * (1 - part)  # what the tones leave of the photograph's own difference
    assert (step > flat + 0.05) == changed


@pytest.mark.parametrize(("part", "gleams"), [(1.08, False), (1.35, True)])
def test_skin_gleams_above_a_part_of_its_own_brightness_only(part, gleams):
    picture = parts(0.5, 0.5, 0.5, 0.5 * part)
    step = middle(drawn(picture), 3, 4) - middle(drawn(picture), 0, 4)
    assert (step > 0.35 * 0.5 * (part - 1) + 0.02) == gleams and step < 0.15


def test_the_form_of_the_head_helps_to_shade():
    """In even light a side that turns away from it lies in the shade; turned a little, it does not."""
    even = parts(0.6, 0.6, 0.6, 0.6)
    slight, turned = (drawn(even, form=parts(1.0, 1.0, 1.0, k)) for k in (0.85, 0.55))
    assert abs(middle(slight, 0, 4) - middle(slight, 3, 4)) < 0.01 < 0.05 < middle(turned, 0, 4) - middle(turned, 3, 4)


def test_faint_edges_are_inked_at_nose_mouth_and_jaw_only():
    """A step of brightness too faint for ink elsewhere is a line where a nose ends."""
    light = parts(0.6, 0.5)
    marks = np.full((68, 2), -500.0)
    without = drawn(light, points=marks)
    marks[31:36] = np.stack([np.full(5, SIZE / 2), np.linspace(40, 120, 5)], 1)
    with_nose = drawn(light, points=marks)
    darker = without - with_nose
    assert darker[60:100, 70:90].max() > 0.1 and darker[:10].max() < 0.01 and darker[:, :40].max() < 0.01


def test_eyes_and_mouth_keep_the_films_own_tones():
    picture = parts(0.3, 0.6)
    film = np.repeat(picture[..., None], 3, -1)
    kept = pen(picture)
    kept.region = {**kept.region, "mouth": np.ones((SIZE, SIZE), np.float32)}
    kept.look = SimpleNamespace(tones=4, ink=0.0)
    assert np.allclose(photo_techniques.comic(film, kept), film, atol=1e-4)


def test_pores_and_stubble_are_not_shaded_one_by_one():
    """Speckles of a few pixels, dark enough to lie in the shade by themselves: the skin keeps one tone."""
    rng = np.random.default_rng(0)
    speckled = np.full((SIZE, SIZE), 0.6, np.float32)
    speckled[np.repeat(np.repeat(rng.random((SIZE // 4, SIZE // 4)) < 0.1, 4, 0), 4, 1)] = 0.45
    tone = photo_techniques._cel(speckled, pen(speckled)) - 0.35 * speckled  # without the photograph's own share
    assert tone.std() < 0.005


def test_hardly_a_difference_is_not_inked_even_at_the_nose():
    marks = np.full((68, 2), -500.0)
    marks[31:36] = np.stack([np.full(5, SIZE / 2), np.linspace(40, 120, 5)], 1)
    light = parts(0.600, 0.588)
    assert np.abs(drawn(light, points=marks) - drawn(light)).max() < 0.02
