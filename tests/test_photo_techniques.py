"""A comic's flat tones and ink, and a painter's brush, on shapes whose tones are known. No renderer is needed."""
from types import SimpleNamespace

import numpy as np
import pytest

from vtoonify_lib.studio import photo_techniques
from vtoonify_lib.studio.filters import luma
from vtoonify_lib.studio.photo_looks import COMIC, PAINT

SIZE, EYE = 160, 60.0


def away() -> np.ndarray:
    """Points of a face that lies below the picture."""
    return np.linspace(1000.0, 1500.0, 68)[:, None].repeat(2, 1)


def pen(light: np.ndarray, form: float | np.ndarray = 1.0, points=None) -> SimpleNamespace:
    """A face that fills the picture, of so much light; its form shades nothing unless asked to."""
    everywhere = np.ones((SIZE, SIZE), np.float32)
    nowhere = np.zeros_like(everywhere)
    marks = away() if points is None else points
    return SimpleNamespace(eye=EYE, look=COMIC, skin=everywhere, normal=None, marks=marks,
                           shade=lambda _: np.broadcast_to(np.float32(form), light.shape),
                           masks={"person": everywhere, "hair": nowhere, "glasses": nowhere},
                           region=dict.fromkeys(("eyes", "mouth", "lips", "brows", "face"), nowhere), brows=nowhere)


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
    flat = 0.4 * 0.6 * (1 - part)  # what the tones leave of the photograph's own difference
    assert (step > flat + 0.05) == changed


@pytest.mark.parametrize(("part", "gleams"), [(1.08, False), (1.35, True)])
def test_skin_gleams_above_a_part_of_its_own_brightness_only(part, gleams):
    picture = parts(0.5, 0.5, 0.5, 0.5 * part)
    step = middle(drawn(picture), 3, 4) - middle(drawn(picture), 0, 4)
    assert (step > 0.4 * 0.5 * (part - 1) + 0.02) == gleams and step < 0.15


def test_the_form_of_the_head_helps_to_shade():
    """In even light a side that turns away from it lies in the shade; turned a little, it does not."""
    even = parts(0.6, 0.6, 0.6, 0.6)
    slight, turned = (drawn(even, form=parts(1.0, 1.0, 1.0, k)) for k in (0.85, 0.55))
    assert abs(middle(slight, 0, 4) - middle(slight, 3, 4)) < 0.01 < 0.05 < middle(turned, 0, 4) - middle(turned, 3, 4)


def test_faint_edges_are_inked_at_nose_mouth_and_jaw_only():
    """A step of brightness too faint for ink elsewhere is a line where a nose ends."""
    light = parts(0.6, 0.5)
    marks = away()
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
    tone = photo_techniques._cel(speckled, pen(speckled)) - 0.4 * speckled  # without the photograph's own share
    assert tone.std() < 0.005


def test_hardly_a_difference_is_not_inked_even_at_the_nose():
    marks = away()
    marks[31:36] = np.stack([np.full(5, SIZE / 2), np.linspace(40, 120, 5)], 1)
    light = parts(0.600, 0.588)
    assert np.abs(drawn(light, points=marks) - drawn(light)).max() < 0.02


def test_a_face_lit_from_the_side_has_a_second_shade():
    """What lies in the dark is darker than what lies in the shade, by more than the photograph's own share."""
    picture = parts(0.7, 0.7, 0.50, 0.30)
    tones = drawn(picture)
    shade, deep = middle(tones, 2, 4), middle(tones, 3, 4)
    assert 0.4 * 0.2 + 0.06 < shade - deep < 0.2 and deep > 0.3 + 0.05


def test_brows_are_filled_and_not_outlined():
    """A brow a little darker than skin becomes a darker shape; without a brow there, the same step stays faint."""
    light = np.full((SIZE, SIZE), 0.6, np.float32)
    light[60:75, 50:110] = 0.5
    brow = np.zeros((SIZE, SIZE), np.float32)
    brow[58:77, 48:112] = 1
    film = np.repeat(light[..., None], 3, -1)
    without, given = pen(light), pen(light)
    given.brows = brow
    plain, filled = (luma(photo_techniques.comic(film, p)) for p in (without, given))
    inside = np.s_[63:72, 60:100]
    assert 0.08 < (plain - filled)[inside].min() < 0.11 and filled[inside].std() < 0.02
    spectacles = pen(light)
    spectacles.brows, spectacles.masks = brow, {**given.masks, "glasses": np.ones((SIZE, SIZE), np.float32)}
    assert luma(photo_techniques.comic(film, spectacles))[inside].min() > 0.54


@pytest.mark.parametrize("part", ["brows", "eyes", "mouth"])
def test_what_is_drawn_already_holds_less_ink_than_other_edges(part):
    light = parts(0.9, 0.1)
    film = np.repeat(light[..., None], 3, -1)
    drawn_there = pen(light)
    everywhere = np.ones((SIZE, SIZE), np.float32)
    drawn_there.region, drawn_there.brows = {**drawn_there.region, part: everywhere}, everywhere * (part == "brows")
    inked, spared = (photo_techniques._ink(film, p).max() for p in (pen(light), drawn_there))
    assert inked > 0.9 and 0.15 < spared < 0.5


def test_wrinkles_of_plain_skin_are_inked_less_than_edges_of_clothes():
    light = parts(0.7, 0.3)
    film = np.repeat(light[..., None], 3, -1)
    clothes = pen(light)
    clothes.skin = np.zeros((SIZE, SIZE), np.float32)
    wrinkle, seam = (photo_techniques._ink(film, p).max() for p in (pen(light), clothes))
    assert 0.1 < wrinkle < 0.4 < 0.9 < seam


@pytest.mark.parametrize(("color", "kept"), [((0.30, 0.26, 0.24), True), ((0.36, 0.24, 0.18), False),
                                             ((0.56, 0.50, 0.46), False)])
def test_beards_are_told_from_shade_by_their_colour(color, kept):
    """Grey and dark is a beard, which the film's strands are kept of; red and dark is shade, grey and light is skin."""
    film = np.broadcast_to(np.float32([0.72, 0.48, 0.36]), (SIZE, SIZE, 3)).copy()
    film[100:150, 40:120] = color
    marks = away()
    marks[30, 1], marks[33, 1] = 40, 50
    beard = photo_techniques._beard(film, pen(luma(film), points=marks))
    assert (beard[115:140, 60:100].min() > 0.8) if kept else (beard[115:140, 60:100].max() < 0.1)
    assert beard[:30].max() == 0, "there is no beard above the nose"


def painted(light: np.ndarray, face=None, **masks) -> np.ndarray:
    brush = pen(light)
    brush.look, brush.masks = PAINT, {**brush.masks, **masks}
    if face is not None:
        brush.region = {**brush.region, "face": face}
    return luma(photo_techniques.paint(np.repeat(light[..., None], 3, -1).astype(np.float32), brush))


def test_a_painting_has_no_halo_beside_an_edge():
    """Strokes are crisp without being brighter or darker than what they are painted of."""
    light = parts(0.9, 0.2)
    out = painted(light)
    assert 0.19 < out.min() and out.max() < 0.91


def test_strokes_are_crisp_across_and_smeared_along():
    """A soft edge becomes a much steeper one, which no bristles fray; speckles on stripes are drawn out along them."""
    soft = np.repeat((0.5 + 0.3 * np.tanh(np.linspace(-12, 12, SIZE)))[None].astype(np.float32), SIZE, 0)
    steepest = [float(np.abs(np.diff(x[SIZE // 2])).max()) for x in (soft, painted(soft))]
    assert steepest[1] > 4 * steepest[0]
    rng = np.random.default_rng(4)
    rows = np.repeat(np.tile([0.4, 0.4, 0.4, 0.6, 0.6, 0.6], SIZE)[:SIZE, None], SIZE, 1)
    speckled = (rows + 0.03 * rng.standard_normal((SIZE, SIZE))).astype(np.float32)
    stripes = painted(speckled, hair=np.ones((SIZE, SIZE), np.float32))[40:-40, 40:-40]
    assert stripes.std(1).mean() < 0.25 * stripes.std(0).mean()


def test_a_painting_of_the_same_picture_elsewhere_has_the_same_strokes():
    """Strokes follow what is seen, not a noise that belongs to the canvas: a network can learn nothing else."""
    rng = np.random.default_rng(1)
    texture = np.repeat(np.repeat(rng.random((40, 40)), 4, 0), 4, 1).astype(np.float32) * 0.2 + 0.4
    here, there = painted(texture), painted(np.roll(texture, (12, 20), (0, 1)))
    assert np.abs(np.roll(here, (12, 20), (0, 1)) - there)[60:110, 60:110].max() < 1e-3


def test_a_brush_leaves_flat_patches_and_is_finer_in_hair():
    rng = np.random.default_rng(2)
    texture = (0.5 + 0.08 * rng.standard_normal((SIZE, SIZE))).astype(np.float32)
    steps, everywhere = np.clip(texture, 0, 1), np.ones((SIZE, SIZE), np.float32)
    broad, fine = painted(steps, person=0 * everywhere), painted(steps, person=0 * everywhere, hair=everywhere)
    face = painted(steps, person=0 * everywhere, face=everywhere)
    assert broad.std() < 0.5 * steps.std() and broad.std() < fine.std() < face.std() < steps.std()


@pytest.mark.parametrize(("constant", "wrong"), [(None, 0), ("LOST", (0.2, 0.3)), ("DETAIL_SIZE", 0.004),
                                                 ("FINE_STROKE", 0.2)])
def test_what_broad_strokes_lose_on_a_person_is_painted_with_finer_ones(monkeypatch, constant, wrong):
    """Narrow stripes crossed by others, as of a badge, are gone from a wall and stay on a jacket."""
    if constant:
        monkeypatch.setattr(photo_techniques, constant, wrong)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    badge = (0.5 + 0.25 * np.sign(np.sin(rows * np.pi / 3) * np.sin(columns * np.pi / 3))).astype(np.float32)
    wall, jacket = (painted(badge, person=np.full((SIZE, SIZE), share, np.float32))[40:-40, 40:-40].std()
                    for share in (0, 1))
    assert wall < 0.3 * badge.std()
    assert (jacket > 0.6 * badge.std()) == (constant is None)


def test_bristles_are_seen_in_texture_and_not_on_an_even_wall():
    rng = np.random.default_rng(3)
    grain = np.repeat(np.repeat(rng.standard_normal((SIZE // 2, SIZE // 2)), 2, 0), 2, 1).astype(np.float32)

    def relief(amount: float) -> float:
        light = 0.5 + amount * grain
        reach, photo_techniques.RELIEF = photo_techniques.RELIEF, 0.0
        try:
            without = painted(light)
        finally:
            photo_techniques.RELIEF = reach
        return float(np.abs(painted(light) - without)[40:-40, 40:-40].mean())

    assert relief(0.0) == 0 and relief(0.002) < 0.0018 < 0.004 < relief(0.05) < 0.05


@pytest.mark.parametrize(("constant", "wrong"), [(None, 0), ("COMIC_STROKE", 0.02), ("INK_DETAIL", 1.0)])
def test_strands_of_hair_are_not_inked_one_by_one(monkeypatch, constant, wrong):
    """Strands a few pixels wide, which a pen would make a dash of each, are one dark shape without ink."""
    if constant:
        monkeypatch.setattr(photo_techniques, constant, wrong)
    strands = 0.4 + 0.09 * np.sign(np.sin(np.arange(SIZE) * np.pi / 2.5))[None].repeat(SIZE, 0).astype(np.float32)
    strands += 0.036 * np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)
    hair = pen(strands)
    hair.skin, hair.masks = np.zeros_like(hair.skin), {**hair.masks, "hair": np.ones((SIZE, SIZE), np.float32)}
    film = np.repeat(strands[..., None], 3, -1)
    black = (luma(photo_techniques.comic(film, hair))[30:-30, 30:-30] < 0.15).mean()
    assert (black < 0.01) == (constant is None)


def test_rims_of_spectacles_stay_whole_in_a_painting_and_in_a_comic():
    """Rims are thinner than any brush: where the mask of spectacles is, the film's own are kept."""
    light = np.full((SIZE, SIZE), 0.6, np.float32)
    light[78:81] = 0.15
    glasses = np.zeros((SIZE, SIZE), np.float32)
    glasses[76:83] = 1
    film = np.repeat(light[..., None], 3, -1)
    for draw, look in ((photo_techniques.paint, PAINT), (photo_techniques.comic, COMIC)):
        worn, bare = pen(light), pen(light)
        worn.look = bare.look = look
        if look is PAINT:  # on a person, finer strokes bring part of it back
            worn.masks = bare.masks = {**bare.masks, "person": 0 * light}
        worn.masks = {**worn.masks, "glasses": glasses}
        kept, brushed = (luma(draw(film, p))[79, 40:-40].mean() for p in (worn, bare))
        assert kept < 0.25, look.name
        assert look is COMIC or brushed > 0.3, "without the mask a brush takes the rim away"
