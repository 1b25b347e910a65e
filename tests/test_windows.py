"""Windows of large pairs: the pixels they should have, of the entries they may, the same from every process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_pairs import write_looks, write_pairs
from test_parsing import pattern

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.models.detail import warp
from vtoonify_lib.studio.packing import held_out, pack, unpack
from vtoonify_lib.studio.shards import Pairs
from vtoonify_lib.training import augment, loop, windows
from vtoonify_lib.training.exemplars import Exemplars
from vtoonify_lib.training.windows import Framing, PairLoader, PatchDataset, Source

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = {"JPEG_SHARE": 0.0, "COVER_SHARE": 0.0, "COARSE_SHARE": 0.0}


@pytest.fixture(scope="module")
def looks(tmp_path_factory):
    return write_looks(tmp_path_factory.mktemp("looks") / "pairs", ("storybook", "comic"))


def made(pairs, looks=("storybook",), batch=6, **framing):
    pool = np.setdiff1d(pairs.ready, held_out(pairs.folder))
    return PatchDataset([Source(pairs, pool, 64)], looks, Framing(16, 2, **framing), batch, seed=3)


def test_windows_that_are_not_moved_keep_every_pixel(looks, monkeypatch):
    for name, value in PLAIN.items():
        monkeypatch.setattr(windows, name, value)
    found = made(looks, moved=0.0)[5]
    pictures = [torch.from_numpy(p).permute(2, 0, 1) for way in (1, -1)
                for p in np.array(looks["storybook"])[3:, :, ::way].copy()]
    photos = [torch.from_numpy(p).permute(2, 0, 1).float() for way in (1, -1)
              for p in np.array(looks["photo"])[3:, :, ::way].copy()]
    for x, y in zip(found["x"], found["y"], strict=True):
        spots = [(n, top, left) for n, p in enumerate(pictures) for top in range(0, 33, 2) for left in range(0, 33, 2)
                 if torch.equal(p[:, top : top + 32, left : left + 32], y)]
        assert spots, "no drawing has these pixels"
        apart = [(F.avg_pool2d(photos[n][None, :, top : top + 32, left : left + 32], 2)[0] - x).abs().max()
                 for n, top, left in spots]
        assert min(apart) <= 0.51, "the input is not of the same place"


def test_a_window_is_a_part_of_the_moved_picture(looks):
    picture = np.array(looks["photo"][5])
    theta = augment.placements(1, loop.rng_for(1, 0))[0]
    grid = F.affine_grid(theta[None], [1, 3, 64, 64], align_corners=False)
    whole = F.grid_sample(torch.from_numpy(picture).permute(2, 0, 1)[None].float(), grid, padding_mode="reflection",
                          align_corners=False)[0]
    for top, left in ((0, 0), (10, 20), (32, 32)):
        part = windows.fetch(picture, windows.window_grid(theta, top, left, 32, 64, 64), "bilinear")
        assert torch.allclose(part, whole[:, top : top + 32, left : left + 32], atol=2e-2)


@pytest.mark.parametrize("moved", [0.0, 1.0])
def test_the_flow_says_where_a_drawing_has_its_pixels_from(looks, moved, monkeypatch):
    """A drawing that is its photograph, moved by 4 and −3 of its pixels, mirrored, turned, zoomed and cut alike."""
    for name, value in PLAIN.items():
        monkeypatch.setattr(windows, name, value)
    y, x = np.mgrid[:64, :64] / 64
    photo = np.stack([127 + 100 * np.sin(9 * x + k) * np.cos(7 * y - k) for k in range(3)], -1).astype(np.uint8)
    drawing = np.roll(photo, (3, -4), (0, 1))
    arrays = dict(looks.arrays) | {
        "photo": np.repeat(photo[None], 12, 0), "storybook": np.repeat(drawing[None], 12, 0),
        "storybook_move": np.broadcast_to(np.array([4, -3], "f2"), (12, 8, 8, 2))}
    pairs = Pairs(looks.folder, arrays, looks.ready)
    found = made(pairs, moved=moved, turn=0.2, zoom=(0.9, 1.1), flow_step=4)[2]
    photos, drawings, flow = (found[name].float() for name in ("x", "y", "flow"))
    assert photos.shape[2:] == drawings.shape[2:] == (32, 32) and flow.shape == (6, 2, 8, 8)
    middle = (..., slice(10, 22), slice(10, 22))  # np.roll wraps, pictures end
    right, wrong = ((warp(photos, sign * flow, 2) - drawings)[middle].abs().mean() for sign in (1, -1))
    assert right < 1 and wrong > 10


@pytest.mark.parametrize("side", [32, 48, 64, 128])
def test_faces_are_as_large_as_asked_for(looks, side, monkeypatch):
    for name, value in PLAIN.items():
        monkeypatch.setattr(windows, name, value)
    many = PatchDataset([Source(looks, looks.ready[5:6], side)], ("storybook",), Framing(16, 2, moved=0.0), 1, 3)
    y = many[2]["y"][0].float()
    picture = torch.from_numpy(np.array(looks["storybook"][5])).permute(2, 0, 1)[None].float()
    ways = [F.interpolate(p, (side, side), mode="bicubic", antialias=side < 64) for p in (picture, picture.flip(3))]
    apart = [(p[0, :, top : top + 32, left : left + 32] - y).abs().mean() for p in ways
             for top in range(0, side - 31, 2) for left in range(0, side - 31, 2)]
    assert min(apart) < 3 and (len(apart) < 4 or np.median(apart) > 6)


def test_how_large_faces_are(looks):
    eyes = 0.24 * 64  # apart in these pictures
    assert windows.natural_side(looks, looks.ready, eyes, 4) == windows.natural_side(looks, looks.ready, 17, 4) == 64
    assert windows.natural_side(looks, looks.ready, 2 * eyes, 4) == 128
    assert windows.natural_side(looks, looks.ready, eyes / 2, 4) == 32
    pair = windows.whole(looks, [3], "comic", 2, 8, natural=96)
    assert pair.x.shape[-1] == 48 and pair.y.shape[-1] == 96


def test_what_is_in_front_is_in_front_of_both(looks, monkeypatch):
    monkeypatch.setattr(windows, "JPEG_SHARE", 0.0)
    bare, covered = [], []
    for share, rows in ((0.0, bare), (1.0, covered)):
        monkeypatch.setattr(windows, "COVER_SHARE", share)
        rows += [made(looks, batch=1, moved=0.0)[i] for i in range(12)]
    hidden = 0
    for a, b in zip(bare, covered, strict=True):
        x, y = ((a[k].float() - b[k].float()).abs().amax(1)[0] > 2 for k in ("x", "y"))
        assert not (x & ~(F.max_pool2d(y[None].float(), 2)[0] > 0)).any(), "the input is covered where nothing is drawn"
        assert not (y & b["person"][0] & ~a["person"][0]).any()
        hidden += int(a["parsing"].count_nonzero() - b["parsing"].count_nonzero())
    assert hidden > 50


def test_held_out_people_are_never_seen_and_folders_take_turns(looks, tmp_path):
    other = write_pairs(tmp_path / "renders", 6)
    asked = {id(looks): [], id(other): []}

    class Noted(PatchDataset):
        def _entry(self, source, rng):
            asked[id(source.pairs)].append(1)
            assert int(source.pool.min()) >= (3 if source.pairs is looks else 0)
            return super()._entry(source, rng)

    sources = [Source(looks, np.setdiff1d(looks.ready, held_out(looks.folder)), 64), Source(other, other.ready, 64)]
    found = Noted(sources, ("storybook",), Framing(16, 2), 4, 3)
    for i in range(3):
        assert found[i]["y"].shape == (4, 3, 32, 32)
    assert [len(n) for n in asked.values()] == [6, 6]
    assert held_out(looks.folder).tolist() == [0, 1, 2] and held_out(other.folder, 2).tolist() == [0, 1]


def test_batches_depend_on_the_iteration_alone(looks):
    shown = Exemplars([np.full((1, 32, 32, 3), 40 * k, np.uint8) for k in range(4)],
                      ("storybook", "comic"))

    def feed(workers):
        many = PatchDataset([Source(looks, looks.ready[3:], 64)], ("storybook", "comic"), Framing(16, 2, face=32), 2, 3,
                            shown)
        codes = np.arange(20, dtype=np.float32).reshape(5, 2, 2)
        return PairLoader(many, workers=workers, codes=codes)

    alone, helped = feed(0), feed(1)
    for i in (0, 1, 2, 7, 8, 3):
        a, b = alone(i), helped(i)
        assert all(torch.equal(p, q) for p, q in zip((*a[:4], *a.condition), (*b[:4], *b.condition), strict=True))
        assert a.x.shape == (2, 3, 16, 16) and a.y.shape == (2, 3, 32, 32) and a.aligned.shape[-1] == 32
        assert torch.equal(a.condition.codes[:, 0, 0], 4.0 * a.condition.index) and a.condition.null_code[0, 0, 0] == 16
        assert torch.allclose((a.condition.exemplar[:, 0, 0, 0] + 1) * 127.5, 40.0 * a.condition.index, atol=0.5)
    coded = torch.cat([alone(i).condition.use_table_code for i in range(8)])
    assert 0 < coded.sum() < len(coded) and not torch.equal(alone(1).y, alone(2).y)


def test_colours_of_the_style_are_not_tinted(looks, monkeypatch):
    monkeypatch.setattr(windows, "COVER_SHARE", 0.0)
    for degree, kept in ((1.0, True), (0.0, False)):
        looks.arrays["storybook_color"] = np.full(12, degree, "f4")
        feed = PairLoader(made(looks, moved=0.0))
        plain, tinted = feed.patches[4], feed(4).y
        same = ((tinted + 1) * 127.5 - plain["y"].float()).abs().amax(1) < 0.6
        assert bool(same[plain["person"]].all()) == kept and not same[~plain["person"]].all()


def test_drawings_of_photographs_are_tinted_with_them_and_not_mirrored(tmp_path, monkeypatch):
    """Drawings that are their photographs, which become brighter to the right."""
    for name, value in PLAIN.items():
        monkeypatch.setattr(windows, name, value)
    monkeypatch.setattr(windows.augment, "degrade", lambda x, g: x)
    ramp = np.broadcast_to(np.linspace(60, 180, 64, dtype=np.uint8)[:, None], (12, 64, 64, 3))
    for photographs in (True, False):
        pairs = write_looks(tmp_path / str(photographs), ("storybook",), photographs=photographs)
        arrays = dict(pairs.arrays) | {"photo": ramp, "storybook": ramp, "storybook_color": np.ones(12, "f4")}
        loader = PairLoader(made(Pairs(pairs.folder, arrays, pairs.ready, photographs=photographs), shift=0.0))
        found = [loader(i) for i in range(8)]
        darker = torch.cat([p.x[..., 12:].mean((1, 2, 3)) < p.x[..., :4].mean((1, 2, 3)) for p in found]).sum()
        apart = max(float((F.avg_pool2d(p.y, 2) - p.x).abs().mean()) for p in found)
        assert darker == 0 and apart < 0.02 if photographs else 12 < darker < 36 and apart > 0.02


def test_windows_larger_than_the_pictures(looks):
    with pytest.raises(VToonifyError, match="entries of 64 px to train on; windows need one of 128 px"):
        PatchDataset([Source(looks, looks.ready, 64)], ("storybook",), Framing(64, 2), 1, 0)


# -- packed data sets --------------------------------------------------------------------------------------------------
def test_a_packed_data_set_is_the_same_data_set(looks, tmp_path):
    (looks.folder / "exemplars").mkdir(exist_ok=True)
    np.save(looks.folder / "exemplars" / "comic.npy", np.zeros((24, 8, 8, 3), np.uint8))
    assert pack(looks.folder, tmp_path / "all.zip") == 12
    back = unpack(tmp_path / "all.zip", tmp_path / "back")
    assert back.ready.tolist() == looks.ready.tolist() and held_out(back.folder).tolist() == [0, 1, 2]
    for name, array in back.arrays.items():
        if array.dtype == np.uint8 and array.ndim == 4:
            assert np.abs(array.astype(int) - looks[name]).mean() < 8, name  # lossy, and these pictures are noise
        elif not name.endswith("_color"):
            assert np.array_equal(array, looks[name]), name
    assert back.exemplars("comic").shape == (24, 8, 8, 3)
    pack(looks.folder, tmp_path / "one.zip", ["comic"])
    assert "storybook" not in unpack(tmp_path / "one.zip", tmp_path / "one").arrays
    assert (tmp_path / "one.zip").stat().st_size < (tmp_path / "all.zip").stat().st_size
    with pytest.raises(VToonifyError, match="has no look clay"):
        pack(looks.folder, tmp_path / "none.zip", ["clay"])
    with pytest.raises(VToonifyError, match="is no packed data set"):
        unpack(looks.folder / "meta.json", tmp_path / "bad")


def test_most_detailed_inputs_stay_as_they_are(tmp_path, monkeypatch):
    """What is carried over is to be seen: two in five are degraded, one in four comes from a smaller picture."""
    pairs = write_looks(tmp_path / "pairs", ("storybook",), photographs=True)
    monkeypatch.setattr(windows.augment, "degrade", lambda x, g: torch.full_like(x, 5.0))
    loader = PairLoader(made(pairs, batch=12, flow_step=4))
    degraded = torch.cat([(loader(i).x == 5).flatten(1).all(1) for i in range(6)]).float().mean()
    assert 0.25 < degraded < 0.55
    rng, picture = np.random.default_rng(0), 255 * torch.rand(3, 32, 32)
    coarse = [windows._coarse(picture, rng) for _ in range(200)]
    share = np.mean([not torch.equal(found, picture) for found in coarse])
    assert 0.15 < share < 0.35
    assert all(found.std() < picture.std() for found in coarse if not torch.equal(found, picture))


def test_windows_show_eyes_more_often_than_chance(looks, monkeypatch):
    marks = np.array(looks["photo_landmarks"])
    marks[:, [i for i in range(68) if not 36 <= i < 48]] = 60  # all others lie in a corner
    pairs = Pairs(looks.folder, dict(looks.arrays) | {"photo_landmarks": marks}, looks.ready)

    def shown(share):
        """How many of the windows have an eye in them."""
        monkeypatch.setattr(windows, "EYE_SHARE", share)
        eyes = [windows.augment.CLASS_NAMES.index(name) for name in ("l_eye", "r_eye")]
        small = PatchDataset([Source(pairs, pairs.ready[3:], 64)], ("storybook",), Framing(8, 2, moved=0.0), 16, seed=3)
        found = torch.cat([small[i]["parsing"] for i in range(12)])
        return torch.isin(found, torch.tensor(eyes)).flatten(1).any(1).float().mean()

    chosen = windows.EYE_SHARE
    assert shown(1.0) > shown(0.0) + 0.1 and shown(chosen) > shown(0.0) + 0.05


# -- how often, and how much -------------------------------------------------------------------------------------------
def test_a_part_of_the_inputs_is_compressed_and_can_still_be_seen():
    rng, picture = np.random.default_rng(0), torch.from_numpy(pattern(size=64)).permute(2, 0, 1).float()
    apart = np.array([(windows._compressed(picture, rng).float() - picture).abs().mean() for _ in range(100)])
    assert 0.2 < (apart > 0).mean() < 0.6 and 1 < apart.max() < 8


def test_coarse_inputs_are_faces_still():
    rng, picture = np.random.default_rng(0), torch.from_numpy(pattern(size=128)).permute(2, 0, 1).float()
    apart = [(windows._coarse(picture, rng) - picture).abs().mean() for _ in range(60)]
    assert 0.05 < max(apart) < 8


def test_now_and_then_something_is_in_front_of_a_part(looks):
    many, rng, picture = made(looks), np.random.default_rng(0), torch.rand(3, 32, 32)
    covered = np.array([many._cover(picture, picture, rng)[2].float().mean() for _ in range(200)])
    assert 0.05 < (covered > 0).mean() < 0.3 and 0.02 < covered[covered > 0].mean() < 0.35


def test_bicubic_windows_do_not_show_where_they_were_cut(looks):
    picture, theta = np.array(looks["photo"][5]), augment.placements(1, loop.rng_for(1, 0), zoom=(0.9, 1.1))[0]
    whole = windows.fetch(picture, windows.window_grid(theta, 0, 0, 64, 64, 64))
    part = windows.fetch(picture, windows.window_grid(theta, 20, 20, 16, 64, 64))
    assert torch.allclose(part, whole[:, 20:36, 20:36], atol=2e-2)


def chosen(looks, exemplars, shares=()):
    """Look and structure degree of each of 2,000 entries."""
    dataset = made(looks, ("storybook", "comic"))
    dataset = PatchDataset(dataset.sources, dataset.looks, dataset.framing, 6, 3, exemplars, shares)
    source, rng = dataset.sources[0], np.random.default_rng(0)
    found = [dataset._chosen(source, rng) for _ in range(2000)]
    return np.array([(kind, looks["storybook_structure"][entry]) for kind, entry in found]).T


def test_looks_are_drawn_by_their_shares(looks):
    assert chosen(looks, None)[0].mean() == pytest.approx(0.5, abs=0.04)
    assert chosen(looks, None, (1, 3))[0].mean() == pytest.approx(0.75, abs=0.04)
    for shares in ((1,), (1, 0), (1, 2, 3)):
        with pytest.raises(VToonifyError, match="2 looks got the shares"):
            chosen(looks, None, shares)


def test_of_exemplars_strong_drawings_are_seen_more_often(looks):
    """2 of 9 entries are weak: of two in a row, both are rarely. Without exemplars all are seen alike."""
    weak = [float((chosen(looks, exemplars)[1] < 1).mean()) for exemplars in (None, object())]
    assert weak[0] == pytest.approx(2 / 9, abs=0.03)
    assert weak[1] == pytest.approx(0.3 * 2 / 9 + 0.7 * 4 / 81, abs=0.025)
