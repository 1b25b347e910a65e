"""Training pairs: what changes alike, what changes alone, and what a batch depends on."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from fake_pairs import face

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.faces.parsing_maps import CLASS_NAMES, PALETTE
from vtoonify_lib.studio.shards import Pairs
from vtoonify_lib.training import augment, loop
from vtoonify_lib.training.augment import MIRROR, Batch

HOLD_OUT = 4


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


COLOURS = torch.from_numpy(PALETTE).float() / 127.5 - 1  # [19,3]


def coded(n: int) -> Batch:
    """Pictures whose colours say their classes; cartoon colours are those of the photo turned round."""
    photo = torch.from_numpy(np.stack([face(64, np.random.default_rng(i))[0] for i in range(n)])).long()
    styled = torch.from_numpy(np.stack([face(64, np.random.default_rng(i), 1.6)[0] for i in range(n)])).long()
    return Batch(COLOURS[photo].movedim(-1, 1), COLOURS[styled].flip(-1).movedim(-1, 1), photo, styled)


def classes_of(picture: torch.Tensor) -> torch.Tensor:
    """Classes [B,H,W] that the colours [B,3,H,W] stand for, −1 where a border has mixed them."""
    distance = (picture.movedim(1, -1)[..., None, :] - COLOURS).abs().amax(-1)  # [B,H,W,19]
    least, classes = distance.min(-1)
    return torch.where(least < 1e-4, classes, -1)


def check_alike(batch: Batch) -> list[bool]:
    """Labels are those of the colours, left and right swapped where mirrored, in both styles → mirrored or not."""
    mirrored = []
    seen = [(classes_of(batch.photo), batch.parsing), (classes_of(batch.styled.flip(1)), batch.styled_parsing)]
    for i in range(len(batch.photo)):
        agree = set()
        for shown, labels in seen:
            known = shown[i] >= 0
            assert known.float().mean() > 0.5
            same = torch.equal(labels[i][known], shown[i][known])
            swapped = torch.equal(labels[i][known], MIRROR[shown[i][known]])
            assert same != swapped
            agree.add(swapped)
        assert len(agree) == 1  # photo and cartoon alike
        mirrored += agree
    return mirrored


def test_mirror_swaps_left_and_right():
    swapped = {CLASS_NAMES[i]: CLASS_NAMES[j] for i, j in enumerate(MIRROR.tolist()) if i != j}
    assert swapped == {f"{a}_{part}": f"{b}_{part}" for part in ("brow", "eye", "ear") for a, b in ("lr", "rl")}
    assert torch.equal(MIRROR[MIRROR], torch.arange(19))


def test_flip_swaps_labels_and_pictures_alike():
    before = coded(16)
    after = augment.flip(before, rng(1))
    mirrored = check_alike(after)
    assert 3 < sum(mirrored) < 13
    for i, turned in enumerate(mirrored):
        assert torch.equal(after.photo[i], before.photo[i].flip(2) if turned else before.photo[i])


def test_move_moves_everything_alike():
    before = coded(16)
    after = augment.move(before, rng(2))
    assert 3 < sum(check_alike(after)) < 13
    assert not any(torch.equal(a, b) for a, b in zip(after.photo, before.photo, strict=True))


def test_move_stays_within_its_limits():
    """With nothing but the shift, the middle of a picture moves by up to `shift` of the side, and does move."""
    spot = torch.full((32, 3, 64, 64), -1.0)
    spot[:, :, 30:34, 30:34] = 1
    labels = torch.zeros(32, 64, 64, dtype=torch.long)
    moved = augment.move(Batch(spot, spot, labels, labels), rng(3), zoom=(1, 1), turn=0, shift=0.2).photo[:, 0] + 1
    where = torch.stack([(moved.sum(2) * torch.arange(64)).sum(1), (moved.sum(1) * torch.arange(64)).sum(1)])
    offset = (where / moved.sum((1, 2)) - 31.5).abs() / 64
    assert offset.max() <= 0.2 + 1e-3 and offset.max() > 0.15


def test_tint_treats_both_pictures_alike():
    image = torch.rand(6, 3, 16, 16, generator=rng()) * 2 - 1
    a, b = augment.tint([image, image.flip(3)[..., :8]], rng(4))
    assert torch.equal(a.flip(3)[..., :8], b)
    assert a.min() >= -1 and a.max() <= 1
    assert all((x - y).abs().mean() > 0.01 for x, y in zip(a, image, strict=True))


def test_degrade_keeps_size_and_range():
    image = torch.rand(6, 3, 20, 28, generator=rng()) * 2 - 1
    worn = augment.degrade(image, rng(5))
    assert worn.shape == image.shape and worn.min() >= -1 and worn.max() <= 1


def test_degradation_reaches_the_input_alone(pairs, monkeypatch):
    worn = augment.prepare(pairs, 5, 3, 1, HOLD_OUT)
    monkeypatch.setattr(augment, "degrade", lambda x, g: x)
    clean = augment.prepare(pairs, 5, 3, 1, HOLD_OUT)
    assert not torch.equal(clean.x, worn.x)
    assert all(torch.equal(a, b) for a, b in zip(clean[1:4], worn[1:4], strict=True))
    assert torch.equal(clean.x, augment.half(clean.aligned))


def test_shapes_and_ranges(pairs):
    x, styled, photo, parsing, *_ = augment.prepare(pairs, 5, 0, 1, HOLD_OUT)
    assert (x.shape, styled.shape, photo.shape) == ((5, 3, 32, 32), (5, 3, 64, 64), (5, 3, 64, 64))
    assert parsing.shape == (5, 32, 32) and parsing.dtype == torch.int64 and parsing.max() < 19
    assert all(p.min() >= -1 and p.max() <= 1 for p in (x, styled, photo))


def test_load_reads_what_is_stored(pairs):
    batch = augment.load(pairs, np.array([7, 2]), "storybook")
    assert torch.equal(((batch.styled[1].movedim(0, -1) + 1) * 127.5).round().byte(),
                       torch.from_numpy(pairs["storybook"][2].copy()))
    assert torch.equal(batch.parsing[0], torch.from_numpy(pairs["photo_parsing"][7].astype(np.int64)))


def test_held_out_entries_are_never_drawn(pairs, monkeypatch):
    monkeypatch.setattr(augment, "load", lambda pairs, index, style, device: index)
    drawn = np.concatenate([augment.draw(pairs, 16, i, 1, HOLD_OUT) for i in range(20)])
    assert set(drawn.tolist()) == set(range(4, 12))


def test_nothing_left_to_draw(pairs):
    with pytest.raises(VToonifyError, match="12 entries and 256 are held out"):
        augment.draw(pairs, 2, 0, 1, 256)


def test_a_batch_depends_on_seed_and_iteration_alone(pairs):
    def batch(seed, iteration):
        return augment.prepare(pairs, 4, iteration, seed, HOLD_OUT)

    first = batch(1, 7)
    torch.manual_seed(99)
    np.random.seed(99)
    batch(1, 8)
    assert all(torch.equal(a, b) for a, b in zip(first[:4], batch(1, 7)[:4], strict=True))
    assert not torch.equal(first[0], batch(1, 8)[0]) and not torch.equal(first[0], batch(2, 7)[0])


def test_a_change_does_not_reach_its_source():
    batch = coded(4)
    copies = [getattr(batch, f.name).clone() for f in fields(Batch)]
    g = loop.rng_for(1, 2)
    augment.move(batch, g), augment.flip(batch, g)
    augment.tint([batch.photo, batch.styled], g), augment.degrade(batch.photo, g)
    assert all(torch.equal(a, getattr(batch, f.name)) for a, f in zip(copies, fields(Batch), strict=True))


# -- aligned portraits ------------------------------------------------------------------------------------------------
def test_portraits_are_aligned_and_calm(pairs):
    whole = augment.Portraits(pairs, np.array([6, 8]), "photo", 64, 32)
    assert whole.photo.shape == (2, 32, 32, 3) and whole.target.shape == (2, 64, 64, 3)
    for target, i in zip(whole.target, (6, 8), strict=True):
        inside = pairs["photo_parsing"][i] > 0
        assert (target[inside] == pairs["photo"][i][inside]).all()
        assert 0 < target[~inside].std(0).max() < 0.5 * pairs["photo"][i][~inside].std(0).max()  # its noise is gone
    assert (whole.photo[0] != whole.target[0][::2, ::2]).mean() > 0.5  # the input keeps its background's noise


def test_loosely_framed_people_are_aligned(pairs):
    marks = np.array(pairs["photo_landmarks"][7])
    marker = np.zeros((64, 64, 3), np.uint8)
    x, y = marks[36:48].mean(0)
    marker[int(y) - 1:int(y) + 2, int(x) - 1:int(x) + 2] = 255
    fake = {"photo": {7: marker, 8: marker}, "photo_landmarks": {7: marks}}
    loose, framed = augment.aligned(fake, [7, 8], "photo", 32)
    rows, columns = np.nonzero(loose[..., 0] > 100)
    assert abs(columns.mean() + 0.5 - 16) < 1 and abs(rows.mean() + 0.5 - 15) < 2.5  # between the eyes, just above half
    assert (framed == marker.reshape(32, 2, 32, 2, 3).mean((1, 3)).round()).mean() > 0.99


def test_who_can_be_aligned(pairs):
    even = [i for i in range(HOLD_OUT, 12) if i % 2 == 0]
    assert augment.portrait_pool(pairs, 32, HOLD_OUT).tolist() == even  # the looser ones are too small for this
    assert augment.portrait_pool(pairs, 16, HOLD_OUT).tolist() == list(range(HOLD_OUT, 12))
    marks = {i: np.array(pairs["photo_landmarks"][i]) for i in range(12)}
    marks[7] += (20, 0)  # near the edge: much of the square would be made up
    fake = Pairs(pairs.folder, {"photo": pairs["photo"], "photo_landmarks": marks}, pairs.ready)
    assert augment.portrait_pool(fake, 16, HOLD_OUT).tolist() == [i for i in range(HOLD_OUT, 12) if i != 7]


def test_a_batch_of_portraits_is_mirrored_and_tinted_alike(pairs):
    portraits = augment.Portraits(pairs, np.arange(4, 12, 2), "photo", 32, 32)
    photo, target = portraits.batch(16, 3, 0)
    assert torch.equal(target, portraits.batch(16, 3, 0)[1]) and not torch.equal(target, portraits.batch(16, 4, 0)[1])
    unworn = ((photo - target)[:, :, 12:20, 12:20].abs().amax((1, 2, 3)) < 1e-4)  # the face: no background there
    assert 0 < unworn.sum() < 16


def test_portraits_need_people(pairs):
    with pytest.raises(VToonifyError, match="no aligned people beside the 12 held out"):
        augment.portrait_pool(pairs, 32, 12)
