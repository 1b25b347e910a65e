"""Metrics against values known in advance."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vtoonify_lib.config import INPUT_CHANNELS, VToonifyError
from vtoonify_lib.evaluation import metrics
from vtoonify_lib.models.encoders import ParsingNet


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return ParsingNet(widths=(8, 16, 16)).eval().requires_grad_(False)


def noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_psnr():
    a = torch.zeros(3, 3, 8, 8)
    b = torch.tensor([0.0, 0.2, 2.0]).view(3, 1, 1, 1).expand_as(a)  # a tenth and the whole of the range
    assert metrics.psnr(a, b).tolist() == pytest.approx([100.0, 20.0, 0.0], abs=1e-4)


def test_psnr_in_low_precision():
    a = noise(1, 1, 3, 64, 64)
    value = metrics.psnr(a.bfloat16(), (a + 0.1).bfloat16())
    assert value.dtype == torch.float32 and value.item() == pytest.approx(26, abs=0.2)


def test_feature_distance_is_a_distance(net):
    a, b = noise(1, 2, 3, 32, 32), noise(2, 2, 3, 32, 32)
    assert metrics.feature_distance(net, a, a).abs().max() < 1e-9
    there, back = metrics.feature_distance(net, a, b), metrics.feature_distance(net, b, a)
    assert torch.allclose(there, back, rtol=1e-5) and (there > 1e-3).all()
    assert (metrics.feature_distance(net, a, 0.9 * a + 0.1 * b) < there).all()


def test_feature_distance_of_each_picture_alone(net):
    a, b = noise(1, 3, 3, 32, 32), noise(2, 3, 3, 32, 32)
    alone = [metrics.feature_distance(net, a[i : i + 1], b[i : i + 1]) for i in range(3)]
    assert torch.allclose(metrics.feature_distance(net, a, b), torch.cat(alone), rtol=1e-4)


def enlarge(x):
    """An exactly equivariant network: every pixel becomes four."""
    return F.interpolate(x[:, :3], scale_factor=2)


def framed(x):
    """Draws a frame, so that what it says about a pixel depends on where the border is."""
    return F.pad(enlarge(x)[..., 2:-2, 2:-2], [2] * 4, value=1.0)


def test_equivariance():
    x = noise(3, 1, INPUT_CHANNELS, 64, 64)
    assert metrics.equivariance(enlarge, x, torch.Generator().manual_seed(0)) == 0
    broken = metrics.equivariance(framed, x, torch.Generator().manual_seed(0))
    assert 10 < broken < 255
    assert broken == metrics.equivariance(framed, x, torch.Generator().manual_seed(0))


class Finder:
    """Finds the landmarks that are written into the picture's first pixels, none in a black picture."""

    def faces(self, image: np.ndarray) -> list:
        points = image.reshape(-1)[: 68 * 2].reshape(68, 2).astype(float)
        return [SimpleNamespace(landmarks=points)] if points.any() else []


def picture(points: np.ndarray) -> np.ndarray:
    image = np.zeros((16, 16, 3), np.uint8)
    image.reshape(-1)[: 68 * 2] = points.reshape(-1)
    return image


def test_landmark_shift():
    points = np.random.default_rng(0).integers(60, 100, (68, 2))
    points[36:42], points[42:48] = (40, 80), (90, 80)  # eyes 50 px apart
    moved = points.copy()
    moved[48:] += (0, 10)
    shift = metrics.landmark_shift(Finder(), picture(points), picture(moved))
    assert shift["mouth"] == pytest.approx(0.2) and shift["all"] == pytest.approx(0.2 * 20 / 51)
    assert shift["eyes"] == shift["brows"] == shift["nose"] == 0


def test_no_face_no_shift():
    points, blank = np.full((68, 2), 30), np.zeros((16, 16, 3), np.uint8)
    assert metrics.landmark_shift(Finder(), picture(points), blank) is None
    assert metrics.landmark_shift(Finder(), blank, picture(points)) is None


def test_mean_of_the_rows_that_are_there():
    assert metrics.mean_of([{"a": 1.0, "b": 0.0}, None, {"a": 3.0, "b": 1.0}]) == {"count": 2, "a": 2.0, "b": 0.5}
    assert metrics.mean_of([None]) == {"count": 0}


def test_kernel_distance_sees_another_distribution():
    rng = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(200, 8, generator=rng) for _ in range(3))
    same, moved, narrow = (metrics.kernel_distance(x, a) for x in (b, c + 1, 0.3 * c))
    assert abs(same) < 0.1 < min(moved, narrow)
    assert metrics.kernel_distance(torch.zeros(20, 8), a) > 0.1  # one face for everybody is far from many faces
    dead = torch.zeros(200, 1)
    assert metrics.kernel_distance(torch.cat([b, dead + 1e-3], 1), torch.cat([a, dead], 1)) < 0.2
    with pytest.raises(VToonifyError, match="got 1 and 200"):
        metrics.kernel_distance(a[:1], a)


def test_face_features_tell_pictures_apart():
    torch.manual_seed(0)
    net = ParsingNet(widths=(8, 16, 16)).eval()
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        found = metrics.face_features(net, x)
    assert found.shape == (2, 32) and not torch.allclose(found[0], found[1])


def test_class_iou_counts_pixels_of_all_pictures_together():
    true = np.array([[0, 0, 1, 1], [0, 255, 1, 2]], np.uint8)
    found = np.array([[0, 1, 1, 1], [0, 2, 1, 3]], np.uint8)
    iou = metrics.class_iou([(found, true), (true[:, :1], true[:, :1])])
    assert iou == pytest.approx({"0": 4 / 5, "1": 3 / 4, "2": 0, "3": 0, "mean": (4 / 5 + 3 / 4) / 4})


def test_class_iou_wants_a_marked_pixel():
    with pytest.raises(VToonifyError, match="no pixel is marked"):
        metrics.class_iou([(np.zeros((2, 2), int), np.full((2, 2), 255))])
