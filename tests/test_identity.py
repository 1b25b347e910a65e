"""The identity encoder: what its views keep, that they resume, that it learns to tell people apart, and its numbers."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_training import equal, log_of, state

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.studio.people import Person
from vtoonify_lib.studio.styles import PHOTO
from vtoonify_lib.training import identity, loop

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"hold_out": 24, "batch": 32}


def toys(people: int = 152, views: int = 4, size: int = 32) -> np.ndarray:
    """People are faint symmetric patterns of grey; views differ in bright colours that drown them."""
    rng = np.random.default_rng(0)
    out = np.empty((people, views, size, size, 3), np.uint8)
    for i in range(people):
        half = np.kron(rng.random((8, 4)) < 0.5, np.ones((size // 8, size // 8)))
        pattern = np.concatenate([half, half[:, ::-1]], 1)[..., None] - 0.5
        for n in range(views):
            colours = np.kron(rng.uniform(50, 200, (2, 2, 3)), np.ones((size // 2, size // 2, 1)))
            out[i, n] = np.clip(colours + 60 * pattern, 0, 255)
    return out


@pytest.fixture(scope="module")
def views() -> np.ndarray:
    return toys()


# -- views -----------------------------------------------------------------------------------------------------------
def test_views_keep_the_person_and_change_the_moment():
    seen = identity.views_of(3, 5)
    people, styles = zip(*seen, strict=True)
    for name in ("shape", "age", "male", "ethnicity", "hair", "hair_color", "brow", "iris", "iris_size", "lash"):
        assert all(str(getattr(p, name)) == str(getattr(people[0], name)) for p in people), name
    for name in ("expression", "pose", "gaze", "clothes", "light", "backdrop"):
        assert len({str(getattr(p, name)) for p in people}) == 5, name
    assert all((p.framing == [1, 0, 0, 0]).all() for p in people)
    assert [s == PHOTO for s in styles] == [True, True, False, False, False]
    assert len({str(s.palette) for s in styles[2:]}) == 3
    other = identity.views_of(4, 3)[0][0]
    assert str(other.shape) != str(people[0].shape) and str(other.hair_color) != str(people[0].hair_color)


def test_views_depend_on_the_index_alone():
    assert str(identity.views_of(3, 3)) == str(identity.views_of(3, 5)[:3])


class Camera:
    """A studio that counts what it draws, and stops after `patience` pictures."""

    def __init__(self, patience: int = 10**6):
        self.drawn, self.patience = 0, patience

    def portrait(self, who: Person, style, truth: bool) -> SimpleNamespace:
        if self.drawn == self.patience:
            raise KeyboardInterrupt
        self.drawn += 1
        value = int(255 * abs(float(who.pose[0]))) % 256
        return SimpleNamespace(image=np.full((identity.DRAWN, identity.DRAWN, 3), value, np.uint8))


@pytest.fixture
def camera(monkeypatch):
    def use(patience: int = 10**6) -> Camera:
        made = Camera(patience)
        monkeypatch.setattr(identity, "studio_of", lambda size: made)
        return made

    monkeypatch.setattr(identity, "CHUNK", 2)
    monkeypatch.setattr(identity, "in_processes", here)
    return use


def here(work, jobs):
    """`in_processes`, in this one."""
    return (work(*job) for job in jobs)


def render(folder, people=5, views=3) -> np.ndarray:
    return identity.render_views(folder, people, views)


def test_rendering_goes_on_where_it_was(camera, tmp_path):
    camera()
    whole = render(tmp_path / "a")
    assert whole.shape == (5, 3, 64, 64, 3) and len(np.unique(whole)) > 10
    camera(patience=8)  # in the second chunk of 2 people × 3 views
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path / "b")
    second = camera()
    assert np.array_equal(render(tmp_path / "b"), whole) and second.drawn == 9
    assert not list((tmp_path / "b").glob("*.part"))
    third = camera()
    assert np.array_equal(render(tmp_path / "b"), whole) and third.drawn == 0
    assert render(tmp_path / "b", views=4).shape[1] == 4


def test_views_of_the_studio(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "in_processes", here)
    try:
        views = render(tmp_path, people=2, views=3)
    except VToonifyError as error:
        pytest.skip(str(error))
    flat = views.reshape(6, -1).astype(float)
    assert (flat.std(1) > 15).all() and all(np.abs(flat[i] - flat[j]).mean() > 5 for i in range(6) for j in range(i))
    assert np.array_equal(render(tmp_path, people=2, views=3), views)


# -- network and loss ------------------------------------------------------------------------------------------------
def test_embeddings_have_unit_length_and_see_pictures_of_any_size():
    net = identity.identity_net(16, 8, 32).eval()
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    codes = identity.embed(net, x)
    assert codes.shape == (3, 16) and torch.allclose(codes.norm(dim=1), torch.ones(3))
    large = x.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(identity.embed(net, large), codes, atol=1e-5)
    assert (codes @ codes.T).fill_diagonal_(0).max() < 0.9999


def test_info_nce_is_its_formula():
    a, b = torch.nn.functional.normalize(torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1)), dim=2)
    by_hand = 0.0
    for i in range(4):
        for mine, theirs in ((a, b), (b, a)):
            e = torch.exp(mine[i] @ theirs.T / 0.2)
            by_hand -= float(torch.log(e[i] / e.sum())) / 8
    assert float(identity.info_nce(a, b, 0.2)) == pytest.approx(by_hand, rel=1e-5)
    right, wrong = identity.info_nce(a, a), identity.info_nce(a, a.roll(1, 0))
    assert right < 0.1 < wrong


def small_net():
    return identity.identity_net(16, 8, 32)


# -- training --------------------------------------------------------------------------------------------------------
def test_training_tells_people_apart_it_has_never_seen(views, tmp_path):
    before = identity.identity_report(small_net().eval(), views[:24])
    net = identity.fit_encoder(small_net(), views, tmp_path, 80, lr=3e-3, **SMALL)
    after = identity.identity_report(net, views[:24])
    for name in ("photo", "styled"):
        assert before[f"auc_{name}"] < 0.75 and after[f"auc_{name}"] > 0.9, (before, after)
        assert after[f"same_{name}"] > after[f"other_{name}"] + 0.3
    first, *_, last = log_of(tmp_path)
    assert float(last["found"]) > float(first["found"]) and float(last["loss"]) < 0.7 * float(first["loss"])


def test_resumes_to_the_bit(views, tmp_path, monkeypatch):
    whole = identity.fit_encoder(small_net(), views, tmp_path / "a", 4, **SMALL)
    calls, optimizer_step = [], loop.optimizer_step

    def killed(*a, **k):
        calls.append(1)
        if len(calls) > 2:
            raise KeyboardInterrupt
        optimizer_step(*a, **k)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_SECONDS", -1)
        patch.setattr(loop, "optimizer_step", killed)
        with pytest.raises(KeyboardInterrupt):
            identity.fit_encoder(small_net(), views, tmp_path / "b", 4, **SMALL)
    assert torch.load(tmp_path / "b" / "last.pt", weights_only=True)["iteration"] == 2
    assert equal(state(whole), state(identity.fit_encoder(small_net(), views, tmp_path / "b", 4, **SMALL)))
    assert not equal(state(whole), state(identity.fit_encoder(small_net(), views, tmp_path / "c", 3, **SMALL)))


def test_batches_pair_different_views_of_the_same_people():
    views = np.arange(8, dtype=np.uint8)[:, None] * 20 + np.arange(4, dtype=np.uint8)
    views = np.broadcast_to(views[..., None, None, None], (8, 4, 32, 32, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity.augment, "tint", lambda images, g, strength: images)
        patch.setattr(identity.augment, "degrade", lambda x, g: x)
        seen = [identity._two_views(views, 6, i, 0, 2, "cpu") for i in (0, 0, 1)]
    codes = [((x[:, 0, 0, 0] + 1) * 127.5).round().int().numpy() for x in sum(seen, ())]
    a, b, again, _, other, _ = codes
    assert (a // 20 == b // 20).all() and (a != b).all() and set(a // 20) == {2, 3, 4, 5, 6, 7}
    assert (a == again).all() and (a != other).any()


def test_too_few_people(views, tmp_path):
    with pytest.raises(VToonifyError, match="of 152 people 151 are held out.*render more people"):
        identity.fit_encoder(small_net(), views, tmp_path, 1, **{**SMALL, "hold_out": 151})


def test_render_learn_and_report(camera, tmp_path):
    camera()
    net, report = identity.train_identity(tmp_path, people=6, views=3, iterations=2, batch=4, hold_out=2)
    assert net.image_size == 64 and report["people"] == 2 and (tmp_path / "net" / "last.pt").is_file()


# -- report ----------------------------------------------------------------------------------------------------------
class Reader(torch.nn.Module):
    """Says what the pictures' mean colours are: [B,1,3]."""

    image_size = 8

    def forward(self, x):
        return x.mean((2, 3))[:, None]


def test_report_of_a_network_that_knows_and_of_one_that_does_not():
    colours = np.random.default_rng(0).integers(0, 256, (6, 1, 1, 1, 3)).astype(np.uint8)
    views = np.broadcast_to(colours, (6, 4, 8, 8, 3)).copy()
    knows = identity.identity_report(Reader(), views)
    assert knows["auc_photo"] == knows["auc_styled"] == 1 and knows["same_styled"] == pytest.approx(1)
    assert knows["other_photo"] < 0.9 and knows["people"] == 6
    views[:, 2:] = 200  # drawings of everybody look the same
    blind = identity.identity_report(Reader(), views)
    assert blind["auc_photo"] == 1 and blind["auc_styled"] == pytest.approx(0.5)
    assert blind["same_styled"] == pytest.approx(blind["other_styled"], abs=1e-6)


def test_auc_counts_pairs():
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, 30) + 2, rng.integers(0, 9, 50)
    by_hand = ((a[:, None] > b).sum() + 0.5 * (a[:, None] == b).sum()) / (30 * 50)
    assert identity.auc(a, b) == pytest.approx(by_hand) and identity.auc(b, a) == pytest.approx(1 - by_hand)
