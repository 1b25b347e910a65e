"""What of a photograph is hair, skin, spectacles: on renders whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from people import SIZE

from vtoonify_lib.studio.filters import luma
from vtoonify_lib.studio.photo_masks import GLASSES, HAIR, SIDE, _glasses, _hanging_together, _odds, masks_of
from vtoonify_lib.studio.strands import HairStyle


def test_trees_far_above_the_head_are_no_hair(plain):
    """Where the parsing net takes everything for hair, only what is near the head may be."""
    doubtful = np.zeros((96, 96, 19), np.float32)
    doubtful[..., 17], doubtful[..., 0] = 0.6, 0.4
    hair = masks_of(plain.fit, plain.exact, doubtful)["hair"]
    assert hair[: SIZE // 16].mean() < 0.05 < hair[SIZE // 8: SIZE // 3].mean()


def test_foliage_that_the_net_takes_for_hair_is_none(sit):
    ready = sit(hair=HairStyle(length=0.5))
    backdrop = ready.labels == 0
    rng = np.random.default_rng(0)
    leaves = cv2.resize(rng.random((48, 48, 1), np.float32), (SIZE, SIZE))[..., None] * np.float32([0.5, 0.9, 0.2])
    fit = replace(ready.fit, photo=np.where(backdrop[..., None], leaves, ready.fit.photo).astype(np.float32))
    parsing = np.eye(19, dtype=np.float32)[np.where(backdrop, HAIR, ready.labels)]
    masks = masks_of(fit, ready.exact, parsing)
    hair = ready.labels == HAIR
    assert masks["person"][backdrop].mean() < 0.1 and masks["hair"][backdrop].mean() < 0.05
    assert masks["hair"][hair].mean() > 0.8, masks["hair"][hair].mean()


def test_the_nets_word_counts_far_from_the_head_where_it_is_seldom_wrong(plain):
    label = cv2.resize(plain.exact.label, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    points, eye = (x / SIZE * SIDE for x in (plain.fit.landmarks, plain.fit.eye))
    off = cv2.distanceTransform((label == 0).astype(np.uint8), cv2.DIST_L2, 5) / eye
    leaves = np.eye(19, dtype=np.float32)[np.full((SIDE, SIDE), HAIR)]
    hat = np.eye(19, dtype=np.float32)[np.where(off < 1, HAIR, 0)]
    (near_leaves, far_leaves), (_, far_hat) = (
        [float(np.median(_odds(guess, label, points, eye)[abs(off - at) < 0.05])) for at in (0.1, 0.8)]
        for guess in (leaves, hat))
    assert near_leaves > 1.5 > 0.3 > far_leaves and far_hat > 2, (near_leaves, far_leaves, far_hat)


def test_hair_hangs_together_but_for_small_gaps():
    hair = np.zeros((60, 40), bool)
    hair[5:20], hair[24:40, :8], hair[50:, 20:] = True, True, True  # on the head, below an ear, a collar
    kept = _hanging_together(hair, 25, 6)
    assert kept[:45].sum() == hair[:45].sum() and not kept[50:].any()
    assert not _hanging_together(hair, 15, 2)[24:].any()


def test_dark_cloth_at_the_neck_is_no_skin(plain):
    low = np.arange(SIZE)[:, None] > plain.fit.landmarks[8, 1] + 0.25 * plain.fit.eye
    bare = plain.masks["skin"] * low > 0.9
    photo = np.where(low[..., None], 0.3 * luma(plain.fit.photo)[..., None], plain.fit.photo).astype(np.float32)
    parsing = np.eye(19, dtype=np.float32)[plain.labels]
    dressed = masks_of(replace(plain.fit, photo=photo), plain.exact, parsing)["skin"]
    shade = masks_of(replace(plain.fit, photo=np.where(low[..., None], 0.4 * plain.fit.photo, plain.fit.photo)),
                     plain.exact, parsing)["skin"]
    assert bare.sum() > 500 and dressed[bare].mean() < 0.2 and shade[bare].mean() > 0.7


def test_spectacles_have_a_bridge(plain):
    def found(*pieces, shirt=0):
        frame = np.zeros((SIZE, SIZE), np.float32)
        for ends in pieces:
            cv2.polylines(frame, [plain.fit.landmarks[ends].round().astype(np.int32)], False, 1.0, 3)
        frame[SIZE - shirt:] = 1.0
        return _glasses(np.eye(19, dtype=np.float32)[np.where(frame > 0, GLASSES, 0)], plain.fit)

    assert found([36, 45]).max() > 0.9 and found([36, 39], [42, 45]).max() == 0
    shirt = found([36, 45], shirt=30)
    assert shirt.max() > 0.9 and shirt[-30:].max() == 0
