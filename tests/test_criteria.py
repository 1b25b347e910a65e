"""The published losses, which compare what VGG sees; with random weights, for nobody may ship the true ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_training import HOLD_OUT, changed, fresh, log_of, parsing_net, state, task, train

from vtoonify_lib.config import VToonifyError
from vtoonify_lib.models.perceptual import LPIPS
from vtoonify_lib.training import objectives, vtoonify
from vtoonify_lib.training.adversary import DetailOnly

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    net = fresh(LPIPS, 1)
    for head in (net.lin0, net.lin1, net.lin2, net.lin3, net.lin4):
        head["model"][1].weight.data.abs_()
    return net


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
