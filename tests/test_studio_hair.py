"""Hair, brows and lashes by rule: what each number does, where hair may be, and what it is bound to."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from studio_people import CLASS, PEOPLE, easy

from vtoonify_lib.studio.brows import Brow, brow_line
from vtoonify_lib.studio.geometry import rotation, turn_head
from vtoonify_lib.studio.hair import EYES, grow
from vtoonify_lib.studio.people import Z_SIZE, person, sample_z
from vtoonify_lib.studio.scalp import above_hairline
from vtoonify_lib.studio.strands import TIED, HairStyle, texture

STRAIGHT, LONG = HairStyle(length=0.6), HairStyle(length=2.4, parting=0.0)
FINGERPRINT = """
import hashlib
from vtoonify_lib.studio.hair import grow
from vtoonify_lib.studio.kit import Kit
from vtoonify_lib.studio.regions import Regions
from vtoonify_lib.studio.scalp import Scalp
from vtoonify_lib.studio.strands import HairStyle
print(hashlib.sha256(grow(HairStyle(length=1.3, curl=0.5), Scalp(Regions(Kit()))).rest.tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def scalp(studio):
    return studio.sculptor.scalp


def guides(style: HairStyle, scalp) -> np.ndarray:
    """Points along each ribbon's middle, [n,rows,3]."""
    hair = grow(style, scalp)
    return hair.rest.reshape(-1, hair.rows, 2, 3).mean(2)


def turning(path: np.ndarray) -> float:
    """Mean angle between steps of guides, a decimetre, in radians."""
    steps = np.diff(path, axis=1)
    far = np.linalg.norm(steps, axis=-1)
    cosine = (steps[:, 1:] * steps[:, :-1]).sum(-1) / np.maximum(far[:, 1:] * far[:, :-1], 1e-9)
    return float(np.arccos(np.clip(cosine, -1, 1)).sum() / far.sum())


def classes(studio, **changes) -> np.ndarray:
    who = easy(person(np.zeros(Z_SIZE))).with_(pose=np.zeros(3), **changes)
    return studio.portrait(who).parsing


# -- what each number does ------------------------------------------------------------------------------------------
def test_longer_hair_reaches_further_down(scalp):
    ends = [np.quantile(guides(HairStyle(length=x, parting=0.0), scalp)[..., 1], 0.02) for x in (1.2, 1.8, 2.6, 4)]
    assert (np.diff(ends) < -0.3).all(), ends
    short = [np.linalg.norm(np.diff(guides(HairStyle(length=x), scalp), axis=1), axis=-1).sum(1).mean()
             for x in (0.1, 0.25, 0.4)]
    assert short == pytest.approx([0.1, 0.25, 0.4], rel=0.35) and (np.diff(short) > 0.05).all()


def test_an_undercut_is_short_below_only(scalp):
    for share, least, most in ((1.0, 0.7, 1.3), (0.2, 0.1, 0.5)):
        path = guides(replace(STRAIGHT, sides=share), scalp)
        reach = np.linalg.norm(np.diff(path, axis=1), axis=-1).sum(1)
        low = (path[:, 0, 1] < 7.6) & (path[:, 0, 2] < 0.2)
        assert least < reach[low].mean() / reach[path[:, 0, 1] > 8.1].mean() < most


def test_hair_parts_at_the_parting(scalp):
    for line in (-0.3, 0.0, 0.3):
        path = guides(replace(LONG, parting=line), scalp)
        front = path[path[:, 0, 2] > 0.7]
        side, end = np.sign(front[:, 0, 0] - line), np.sign(front[:, -1, 0])
        assert (side == end).mean() > 0.85, line


def test_a_fringe_ends_at_the_brows(scalp, studio):
    plain, full = (classes(studio, hair=replace(LONG, fringe=x)) == CLASS["hair"] for x in (0.0, 1.0))
    brows = studio.portrait(easy(person(np.zeros(Z_SIZE))), truth=False).landmarks[17:27, 1].mean()
    before = slice(int(brows) - 14, int(brows) - 5), slice(52, 77)
    assert plain[before].mean() < 0.1 and full[before].mean() > 0.6
    path = guides(replace(LONG, fringe=1.0), scalp)
    front = path[(path[:, 0, 2] > 0.92) & (np.abs(path[:, 0, 0]) < 0.48)]
    assert EYES[2] < front[:, -1, 1].min() and front[:, -1, 1].mean() < 7.75


def test_hair_combed_back_leaves_forward(scalp):
    ends = [np.mean(guides(replace(STRAIGHT, back=x), scalp)[:, -1, 2]) for x in (-1.0, 0.0, 1.0)]
    assert ends[0] > ends[1] + 0.02 and ends[1] > ends[2] + 0.02, ends


def test_volume_lifts_hair_off_the_head(scalp):
    for style in (STRAIGHT, LONG):
        flat, high = (scalp.field(guides(replace(style, volume=x), scalp)[..., :3])[0].mean() for x in (0.0, 1.0))
        assert high > flat + 0.02


def test_curls_turn_more_than_waves_and_coils_most(scalp):
    turns = [turning(guides(HairStyle(length=1.2, curl=x), scalp)) for x in (0.0, 0.3, 0.6, 1.0)]
    assert (np.diff(turns) > 0.5).all(), turns


def test_a_receding_hairline_bares_the_forehead(studio):
    bare = [(classes(studio, hair=replace(STRAIGHT, length=0.3, back=0.5, receding=x)) == CLASS["skin"]).sum()
            for x in (0.0, 0.3, 0.6, 1.0)]
    assert (np.diff(bare) > 30).all(), bare
    rest = studio.sculptor.rest
    top, nape = np.array([[0, 8.3, 0.8]]), np.array([[0, 7.2, -0.42]])
    assert above_hairline(top, 1.0) < 0 < above_hairline(top, 0.0) and above_hairline(nape, 1.0) > 0
    assert (above_hairline(rest, 0.6) <= above_hairline(rest, 0.1)).all()


def test_a_shaved_head_has_a_painted_scalp(studio, scalp):
    assert grow(HairStyle(length=0.0), scalp) is None
    shaved, bald = ((classes(studio, hair=hair) == CLASS["hair"]).mean() for hair in (HairStyle(length=0.0), None))
    assert bald == 0 and shaved > 0.05


def test_what_is_tied_is_behind_or_above(scalp):
    bun, tail, braids = (guides(HairStyle(length=2.2, tied=tied, knot=0.9, parting=0.0), scalp) for tied in TIED[1:])
    assert bun[..., 1].max() > 8.6 and bun[..., 1].min() > 6.5
    assert tail[..., 1].min() < 7.4 and tail[tail[..., 1] < 7.0][:, 2].max() < 0.6
    hanging = braids[braids[..., 1] < 6.4]
    assert (np.abs(hanging[:, 0]) > 0.25).mean() > 0.95 and {-1, 1} == set(np.sign(hanging[:, 0]))


def test_a_seed_changes_strands_and_no_more(scalp):
    one, two = (guides(replace(STRAIGHT, seed=seed), scalp) for seed in (1, 2))
    assert abs(len(one) - len(two)) < 0.05 * len(one) and not np.array_equal(one[:100], two[:100])
    assert np.abs(one.mean((0, 1)) - two.mean((0, 1))).max() < 0.05


# -- where hair may be, and what carries it --------------------------------------------------------------------------
def test_hair_is_finite_and_outside_of_the_head(scalp):
    for who in map(person, sample_z(np.random.default_rng(3), 40)):
        hair = grow(who.hair, scalp) if who.hair else None
        if hair is None:
            continue
        mesh = hair.prop.mesh
        assert np.isfinite(hair.rest).all() and np.isfinite(hair.out).all() and np.isfinite(hair.tone).all()
        assert mesh.triangles.min() == 0 and mesh.triangles.max() == len(hair.rest) - 1 == len(mesh.uv) - 1
        away, _ = scalp.field(hair.rest.reshape(-1, hair.rows, 2, 3).mean(2)[:, 1:])
        assert (away < -0.03).mean() < 0.02, who.hair
        assert hair.prop.place(scalp.rest) == pytest.approx(hair.rest.reshape(-1, 2, 3).mean(1), abs=1e-4)


def test_no_strand_is_before_the_eyes(studio):
    eyes = [CLASS[name] for name in ("l_eye", "r_eye")]
    for z in sample_z(np.random.default_rng(8), 16):
        who = easy(person(z)).with_(pose=np.zeros(3))
        hair = person(z).hair
        with_hair, without = (np.isin(studio.portrait(who.with_(hair=h)).parsing, eyes) for h in (hair, None))
        assert without.sum() > 20 and (with_hair & without).sum() > 0.93 * without.sum(), hair


def test_hair_turns_with_the_head(studio):
    who, pose = easy(person(np.zeros(Z_SIZE))).with_(hair=STRAIGHT, pose=np.zeros(3)), np.array([0.5, 0.1, -0.1])
    still, turned = (studio.sculptor.scene(who.with_(pose=p)).hair for p in (np.zeros(3), pose))
    high = still.positions[:, 1] > 6.8
    assert turned.positions[high] == pytest.approx(turn_head(still.positions, pose)[high], abs=0.02)
    assert turned.own[:, :3] == pytest.approx(still.own[:, :3] @ rotation(*pose).T, abs=0.1)


def test_hair_follows_the_shape_of_the_head(studio, scalp):
    wide = {"head/head-scale-horiz-incr": 1.0, "head/head-fat-incr": 0.6}
    who = easy(person(np.zeros(Z_SIZE))).with_(hair=STRAIGHT, pose=np.zeros(3))
    for warp in (None, wide):
        scene = studio.sculptor.scene(who, warp)
        roots = scene.hair.positions.reshape(-1, grow(STRAIGHT, scalp).rows, 2, 3)[:, 0].mean(1)
        skin = scene.body.positions[scalp._used]
        near = np.sqrt(((roots[::10, None] - skin[None]) ** 2).sum(-1).min(1))
        assert np.quantile(near, 0.95) < 0.13, warp  # vertices of a scalp are 0.15 apart


def test_hair_is_the_same_in_every_process(scalp):
    here = hashlib.sha256(grow(HairStyle(length=1.3, curl=0.5), scalp).rest.tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True).stdout
    assert there.strip() == here


# -- brows and lashes -----------------------------------------------------------------------------------------------
def test_each_number_of_a_brow_does_what_it_says(studio):
    share = np.linspace(0, 1, 19)
    (x0, y0, half0), (x1, y1, half1) = (brow_line(Brow(x, x, x), share) for x in (0.0, 1.0))
    assert x1[-1] > x0[-1] + 0.05 and x1[0] == pytest.approx(x0[0]) and (half1 > 1.5 * half0).all()
    rise = [y[12] - (y[0] + y[-1]) / 2 for y in (y0, y1)]
    assert rise[1] > rise[0] + 0.03
    brows = [CLASS["l_brow"], CLASS["r_brow"]]
    thin, thick = (np.isin(classes(studio, hair=None, brow=Brow(thickness=x)), brows).sum() for x in (0.0, 1.0))
    assert thick > 1.4 * thin > 20
    tones = [studio.portrait(easy(person(PEOPLE[0])).with_(brow=Brow(density=x), brow_color=np.zeros(3)), truth=False)
             .image.astype(int) for x in (0.1, 1.0)]
    assert (tones[0] - tones[1]).max() > 30 and (tones[1] - tones[0]).max() < 10


def test_lashes_are_as_long_as_they_are_said_to_be(studio):
    who = easy(person(np.zeros(Z_SIZE))).with_(hair=None, pose=np.zeros(3))
    reach = []
    for long in (0.0, 1.0):
        pairs = studio.sculptor.scene(who.with_(lash=long)).lashes.positions.reshape(-1, 2, 3)
        reach.append(np.linalg.norm(pairs[:, 1] - pairs[:, 0], axis=1).mean())
    assert 0.02 < reach[0] < 0.5 * reach[1] < 0.06, reach


def test_the_texture_has_single_hairs():
    drawn = texture()
    assert drawn.dtype == np.uint8 and drawn.shape == (256, 384, 4)
    for strip in range(4):
        alpha = drawn[60:180, strip * 64: strip * 64 + 64, 3] / 255
        assert alpha[:, 22:42].mean() > 0.75 and alpha[:, [0, 1, 62, 63]].max() < 0.1
        assert drawn[60:180, strip * 64 + 22: strip * 64 + 42, 0].std(1).mean() > 10
