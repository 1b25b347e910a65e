"""The published losses, which compare what VGG sees; with random weights, for nobody may ship the true ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_pairs import styled
from tiny_training import HOLD_OUT, SMALL, changed, distilled, fresh, log_of, parsing_net, state, task, train

from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.models import losses
from vtoonify_lib.models.encoders import StyleEncoder
from vtoonify_lib.models.perceptual import LPIPS
from vtoonify_lib.models.stylegan2 import Discriminator
from vtoonify_lib.training import dualstylegan, exemplars, objectives, vtoonify
from vtoonify_lib.training.adversary import Adversary, DetailOnly

pytestmark = pytest.mark.usefixtures("one_thread")
LOOKS = ("storybook", "comic")


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    net = fresh(LPIPS, 1)
    for head in (net.lin0, net.lin1, net.lin2, net.lin3, net.lin4):
        head["model"][1].weight.data.abs_()
    return net


@pytest.fixture(scope="module")
def lessons(pairs):
    many = styled(pairs, LOOKS)
    shown = exemplars.Exemplars.from_pairs(many, LOOKS, 2, HOLD_OUT, 32)
    return exemplars.portrait_source(many, shown, 2, 64, HOLD_OUT)


# -- features that may be anywhere -------------------------------------------------------------------------------------
def test_contextual_asks_what_is_there_and_not_where():
    g = torch.Generator().manual_seed(0)
    b = torch.randn(2, 16, 5, 6, generator=g)
    shuffled = b.flatten(2)[:, :, torch.randperm(30, generator=g)].reshape(2, 16, 6, 5)
    other = torch.randn(2, 16, 5, 6, generator=g)
    same, moved, foreign = (losses.contextual(a, b).item() for a in (b, shuffled, other))
    assert moved == pytest.approx(same, abs=1e-5) and 0 <= same < 0.05 and foreign > same + 0.5
    a = other.clone().requires_grad_()
    losses.contextual(a, b).backward()
    assert a.grad.abs().sum() > 0 and a.grad.isfinite().all()


def test_contextual_by_its_formula():
    g = torch.Generator().manual_seed(1)
    a, b = torch.randn(1, 4, 1, 3, generator=g), torch.randn(1, 4, 1, 2, generator=g)
    mean = b.mean((2, 3), keepdim=True)
    d = torch.tensor([[1 - F.cosine_similarity((a - mean)[0, :, 0, i], (b - mean)[0, :, 0, j], 0) for j in range(2)]
                      for i in range(3)])
    w = torch.exp((1 - d / (d.min(1, keepdim=True)[0] + 1e-5)) / 0.2)
    cx = (w / w.sum(1, keepdim=True)).max(0)[0].mean()
    assert losses.contextual(a, b).item() == pytest.approx(-cx.log().item(), rel=1e-4)


def test_feature_means_ignore_place():
    b = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    assert losses.feature_means(b.flip(2), b) < 1e-12
    assert losses.feature_means(b + 0.5, b).item() == pytest.approx(0.25, rel=1e-5)


# -- the criteria ------------------------------------------------------------------------------------------------------
def test_the_published_losses_are_those_of_the_paper(lpips):
    out, y = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    parts = objectives.PublishedLosses(lpips)(out, y, torch.ones(2, 1, 64, 64))
    assert parts["picture"].item() == pytest.approx(0.1 * (out - y).square().mean().item(), rel=1e-5)
    assert parts["feature"].item() == pytest.approx(0.01 * lpips(out, y).mean().item(), rel=1e-5)
    assert vtoonify.flicker_weight(100, 100, 0.0, objectives.PublishedLosses.flicker) == 1.0
    assert vtoonify.flicker_weight(100, 100, 0.0, objectives.OurLosses.flicker) == vtoonify.FLICKER_WEIGHT


def test_large_pictures_are_compared_at_512(lpips, monkeypatch):
    seen = []
    monkeypatch.setattr(lpips, "forward", lambda a, b: seen.append(a.shape[-1]) or torch.zeros(1))
    objectives.PublishedLosses(lpips)(torch.zeros(1, 3, 1024, 1024), torch.zeros(1, 3, 1024, 1024), None)
    assert seen == [512]


def test_vtoonify_learns_by_the_published_losses(pairs, lpips, tmp_path):
    before = state(task())
    source = vtoonify.render_source(pairs, 2, HOLD_OUT)
    learnt, _ = train(task(), source, parsing_net(), tmp_path, 3, flicker_from=0.0,
                      criterion=objectives.PublishedLosses(lpips))
    assert any(name.startswith("0.vtoonify.encoder") for name in changed(before, state(learnt)))
    row = log_of(tmp_path)[-1]
    assert float(row["picture"]) < 0.1 and {"feature", "flicker"} <= row.keys()


def test_dualstylegan_learns_by_the_published_losses(lessons, lpips, tmp_path):
    who = fresh(StyleEncoder, 5, n_latent=1, style_dim=16, **SMALL).requires_grad_(False)
    dual = dualstylegan.DualDistilled.from_base(distilled())
    before = state(dual)
    made = []

    def make_adversary():
        made.append(Adversary(fresh(Discriminator, 4, config=TINY.generator)))
        return made[-1]

    dualstylegan.train_styles(dual, lessons, parsing_net(), tmp_path, dualstylegan.StyleSettings(2, norm=0.01),
                              objectives.PublishedStyleLosses(lpips, who), make_adversary)
    names = {name.split(".")[2] for name in changed(before, state(dual)) if name.startswith("0.generator")}
    assert names == {"style", "res"} and len(made) == 1
    row = log_of(tmp_path)[-1]
    assert {"feature", "contextual", "mean feature", "identity", "norm", "sharp", "adversary"} <= row.keys()
    weights = sum(p.float().norm() for p in dual.generator.res.parameters())
    assert float(row["norm"]) == pytest.approx(0.01 * weights.item(), rel=0.05)


# -- weights that its user brings --------------------------------------------------------------------------------------
def test_vgg_and_heads_come_from_files(lpips, tmp_path):
    state_dict = lpips.state_dict()
    names = {f"features.{k.split('.', 2)[2]}": v for k, v in state_dict.items() if k.startswith("net.")}
    torch.save(names, tmp_path / "vgg.pth")
    torch.save({k: v for k, v in state_dict.items() if k.startswith("lin")}, tmp_path / "heads.pth")
    a, b = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    assert torch.equal(objectives.load_lpips(tmp_path / "vgg.pth", tmp_path / "heads.pth")(a, b), lpips(a, b))
    with pytest.raises(VToonifyError, match="VGG-16 does not fit its description"):
        objectives.load_lpips(tmp_path / "heads.pth", tmp_path / "heads.pth")
    with pytest.raises(VToonifyError, match=r"none\.pth does not exist; the published losses need torchvision's vgg16"):
        objectives.load_lpips(tmp_path / "none.pth", tmp_path / "heads.pth")


def test_colours_count_where_single_pixels_are_in_doubt():
    """An iris that is brown with a white light in it, in one of two places: the grey between them is no better."""
    y, mask = torch.zeros(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    y[:, 0], y[:, 2] = 0.2, -0.2
    grey, brown = torch.zeros_like(y), y + 0.3  # the same pixel distance or more
    assert objectives.chroma_loss(brown, y, mask) < 1e-6 < 0.1 < objectives.chroma_loss(grey, y, mask)
    checked = y.clone()
    checked[..., ::2, ::2] += torch.tensor([0.4, 0, -0.4])[:, None, None]
    checked[..., 1::2, 1::2] -= torch.tensor([0.4, 0, -0.4])[:, None, None]
    assert objectives.chroma_loss(checked, y, mask) < 1e-6, "colours are compared as means over squares"
    near = objectives.chroma_loss(grey, y, torch.cat([8 * mask[..., :16], mask[..., 16:]], 3))
    assert near == pytest.approx(4.5 * objectives.chroma_loss(grey, y, mask))
    assert objectives.CHROMA_WEIGHT == 1 and 4 <= objectives.CHROMA_PIXELS <= 10  # an iris is 10 px wide or more


def test_a_discriminator_of_detail_sees_nothing_else():
    seen = []
    net = DetailOnly(torch.nn.Module())
    net.net.forward = lambda x, *about: seen.append(x) or x.mean()
    y, x = np.mgrid[:48, :48] / 48
    smooth = torch.from_numpy(np.stack([x, y, x * y])).float()[None]
    checks = torch.from_numpy((np.indices((48, 48)).sum(0) % 2) * 0.1 - 0.05).float().expand(1, 3, 48, 48)
    for picture in (smooth, 0.2 * smooth + 0.5, smooth + checks):
        net(picture)
    assert max(float(p[..., 2:-2, 2:-2].abs().max()) for p in seen[:2]) < 0.01
    assert float(seen[2][..., 2:-2, 2:-2].abs().mean()) == pytest.approx(0.05 * 10, rel=0.05)
