"""The numbers of VToonify-D, on networks whose numbers are known: the truth, the photograph, one face for everybody."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_pairs import write_pairs
from tiny_training import SMALL, fresh, parsing_net, state

from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.faces.parsing_maps import network_input
from vtoonify_lib.media.images import to_image, to_tensor
from vtoonify_lib.models import latents
from vtoonify_lib.studio.exemplars import EXEMPLARS, LOOKS
from vtoonify_lib.studio.people import person, sample_z
from vtoonify_lib.studio.shards import Pairs
from vtoonify_lib.training import identity, report, vtoonify
from vtoonify_lib.training.pairs import StyleCondition

pytestmark = pytest.mark.usefixtures("one_thread")
TINY_D = replace(TINY, backbone="dualstylegan")
PAIR_LOOKS = ("storybook", "comic")
PAINT = torch.tensor([[0.9, -0.8, -0.6], [-0.8, 0.7, -0.2], [-0.5, -0.5, 0.9], [0.8, 0.8, -0.9]])


def toon(photo: torch.Tensor, condition: StyleCondition) -> torch.Tensor:
    """A way of drawing that knows no place: paint in the look's colour over the person."""
    share = 0.7 * condition.structure.view(-1, 1, 1, 1)
    return torch.lerp(photo, PAINT[condition.index // EXEMPLARS][..., None, None].expand_as(photo), share)


def enlarged(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x[:, :3], scale_factor=2)


def knows(x, pair):
    return toon(enlarged(x), pair.condition), []


def copies(x, pair):
    return enlarged(x), []


def one_face(x, pair):
    return toon(torch.linspace(-1, 1, 2 * x.shape[3]).expand(len(x), 3, 2 * x.shape[2], -1), pair.condition), []


@pytest.fixture(scope="module")
def trials() -> report.HeldOutPeople:
    """Four people of patches of colour, two exemplars, two looks whose truth is `toon`."""
    patches = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3))
    photo = patches.repeat(8, 1).repeat(8, 2).astype(np.uint8)
    number = np.arange(4) // 2
    grey = np.full((4, 2, 64, 64, 3), 128, np.uint8)
    empty = report.HeldOutPeople(number, photo, None, grey, LOOKS[:2])
    truth = np.stack([np.stack([to_image(knows(to_tensor(photo)[..., ::2, ::2], empty.pair(np.arange(4), j, d))[0])
                                for d in report.DEGREES], 1) for j in range(2)], 1)
    return replace(empty, truth=truth)


@pytest.fixture(scope="module")
def who() -> torch.nn.Module:
    return fresh(identity.identity_net, dim=16, width=8, size=32).eval()


def measured(task, trials, who) -> dict:
    found = report.measure(task, parsing_net(), who, trials)
    assert json.loads(json.dumps(found)) == found
    return found


# -- numbers ---------------------------------------------------------------------------------------------------------
def test_numbers_of_the_truth(trials, who):
    found = measured(knows, trials, who)
    assert set(found["looks"]) == set(LOOKS[:2]) and found["people"] == 4
    for scores in (*found["looks"]["clay"].values(), found["mean"]["1"]):
        assert scores["psnr"] == pytest.approx(100) and scores["feature"] < 1e-6
        assert scores["identity"] == pytest.approx(scores["identity_truth"], abs=1e-5)
    half, whole = found["mean"]["0.5"], found["mean"]["1"]
    assert found["mean"]["0"]["input_psnr"] == pytest.approx(100) and found["mean"]["0"]["moved"] < 1e-6
    assert whole["input_psnr"] < half["input_psnr"] < 30 and whole["moved"] > half["moved"] > 0
    assert whole["input_feature"] == pytest.approx(whole["moved"], rel=1e-4)
    assert found["monotone"] == 1 and found["equivariance"] < 1e-3
    assert found["two_people"] == pytest.approx(1)


def test_numbers_of_the_photograph(trials, who):
    found = measured(copies, trials, who)
    for scores in found["mean"].values():
        assert scores["psnr"] == pytest.approx(scores["input_psnr"]) and scores["moved"] < 1e-6
        assert scores["identity"] == pytest.approx(1) and scores["identity_others"] < 0.999
    assert found["mean"]["1"]["psnr"] < 30 and found["monotone"] == 0
    assert found["two_people"] > 1.05  # its people differ more than the painted ones do


def test_numbers_of_one_face_for_everybody(trials, who):
    found = measured(one_face, trials, who)
    assert found["two_people"] == pytest.approx(0, abs=1e-6) and found["equivariance"] > 1
    for scores in found["mean"].values():
        assert scores["identity"] == pytest.approx(scores["identity_others"], abs=1e-5)


def test_degrees_that_go_back_are_not_monotone(trials, who):
    def wavers(x, pair):  # one look turns back after half of the way
        d = pair.condition.structure
        back = torch.where(pair.condition.index < EXEMPLARS, d, torch.where(d > 0.6, 1 - d, d))
        return toon(enlarged(x), pair.condition._replace(structure=back)), []

    assert measured(wavers, trials, who)["monotone"] == 0.5


def test_people_without_a_shared_exemplar(trials, who):
    alone = replace(trials, number=np.arange(4))
    assert measured(knows, alone, who)["two_people"] is None


# -- VToonify-D ------------------------------------------------------------------------------------------------------
def duals() -> vtoonify.DualVToonifyTask:
    """Random weights, with every part of them at work: masks, exemplars, degrees."""
    task = fresh(vtoonify.DualVToonifyTask, config=TINY_D, **SMALL).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for module in (task.style.head[-1], *(f.conv2 for f in task.vtoonify.fusion_out)):
            module.weight.normal_(0, 0.2)
    return task


def test_a_network_is_asked_by_pictures_or_by_codes(trials, who):
    task, few = duals(), np.arange(2)
    pair, darker = trials.pair(few, 1, 1.0), replace(trials, exemplar=trials.exemplar // 4).pair(few, 1, 1.0)
    table = torch.randn(2 * EXEMPLARS + 1, 2, 32, generator=torch.Generator().manual_seed(0))
    coded = report.TableCodedTask(task, table)
    with torch.no_grad():
        by_picture, by_other, by_code, by_same = (
            vtoonify.stylise(net, parsing_net(), p) for net in (task, coded) for p in (pair, darker))
        plain, layers = table[-1:].expand(2, -1, -1), latents.n_latent(TINY.out_size)
        w = latents.styled(plain, table[pair.condition.index], pair.condition.structure, pair.condition.color, layers)
        by_hand = task.vtoonify(network_input(pair.x, parsing_net()(pair.x)), w, 1.0).clamp(-1, 1)
    assert torch.equal(by_code, by_same) and torch.allclose(by_code, by_hand, atol=1e-5)
    assert not torch.allclose(by_picture, by_other, atol=1e-3) and not torch.allclose(by_picture, by_code, atol=1e-3)


def test_a_real_network_is_measured(trials, who):
    found = measured(duals(), trials, who)
    assert 0 < found["mean"]["1"]["psnr"] < 50 and found["looks"]["storybook"] != found["looks"]["clay"]


def masks_of(task, trials, degree=1.0) -> torch.Tensor:
    pair = trials.pair(np.arange(2), 0, degree)
    masks = task(network_input(pair.x, parsing_net()(pair.x)), pair)[1]
    return torch.cat([m.flatten() for m in masks])


@torch.no_grad()
def test_masks_can_be_opened_for_a_while(trials):
    task = duals()
    before, weights = masks_of(task, trials), state(task)
    with pytest.raises(KeyError), report.masks_open(task.vtoonify):
        assert (masks_of(task, trials) == 1).all() and (masks_of(task, trials, 0.0) == 1).all()
        raise KeyError
    assert before.min() < 0.9 and torch.equal(masks_of(task, trials), before)
    assert all(torch.equal(weights[name], value) for name, value in state(task).items())


# -- trials ----------------------------------------------------------------------------------------------------------
def data_set(folder, size: int = 64) -> Pairs:
    """Ten flat people who have a z, and exemplars whose colour is their number."""
    pairs = write_pairs(folder, 10, size)
    (folder / "exemplars").mkdir()
    for look in LOOKS:
        colour = 10 * np.arange(EXEMPLARS, dtype=np.uint8)[:, None, None, None]
        np.save(folder / "exemplars" / f"{look}.npy", np.broadcast_to(colour, (EXEMPLARS, 128, 128, 3)))
    return replace(pairs, arrays={**pairs.arrays, "z": sample_z(np.random.default_rng([0, 0]), 10)})


def test_who_is_held_out(tmp_path, monkeypatch):
    pairs, asked = data_set(tmp_path / "pairs"), []

    def truth(z, number, size, progress):
        asked.append((z, number, size))
        return np.full((len(z), len(LOOKS), 3, size, size, 3), 9, np.uint8)

    monkeypatch.setattr(report, "_truth", truth)
    trials = report.HeldOutPeople.render(pairs, people=4, hold_out=9)
    assert len(asked) == 1 and np.array_equal(asked[0][0], pairs["z"][[0, 2, 4, 6]]) and asked[0][2] == 64
    assert trials.number.tolist() == [0, 0, 1, 1]
    assert np.array_equal(trials.photo, pairs["photo"][[0, 2, 4, 6]]) and (trials.truth == 9).all()
    assert trials.exemplar.shape == (4, 4, 64, 64, 3) and trials.exemplar[:, 2, 0, 0, 0].tolist() == [0, 0, 10, 10]
    with pytest.raises(VToonifyError, match="5 people are asked for, and 4 are held out"):
        report.HeldOutPeople.render(pairs, people=5, hold_out=8)


def test_orders_of_trials(trials):
    pair = trials.pair(np.array([3, 0]), 1, 0.25)
    assert pair.condition.index.tolist() == [EXEMPLARS + 1, EXEMPLARS] and pair.x.shape == (2, 3, 32, 32)
    assert pair.condition.structure.tolist() == pair.condition.color.tolist() == [0.25, 0.25]
    assert torch.equal(pair.aligned, to_tensor(trials.photo[[3, 0]]))
    assert pair.condition.exemplar.shape == (2, 3, 64, 64)


def test_truth_of_the_studio_begins_at_the_photograph(tmp_path):
    from vtoonify_lib.studio.render import Studio

    try:
        studio = Studio(size=64)
    except VToonifyError as error:
        pytest.skip(str(error))
    pairs = data_set(tmp_path / "pairs")
    photos = np.array(pairs["photo"])
    for i in (0, 2):
        photos[i] = studio.portrait(person(pairs["z"][i]), truth=False).image
    pairs = replace(pairs, arrays={**pairs.arrays, "photo": photos})
    trials = report.HeldOutPeople.render(pairs, people=2, hold_out=8, progress=False)
    away = np.abs(trials.truth.astype(float) - trials.photo[:, None, None]).mean((3, 4, 5))  # [people,looks,degrees]
    assert (away[..., 0] < 0.5).all() and (away[..., 1] > 2).all() and (away[..., 2] > away[..., 1]).all()
