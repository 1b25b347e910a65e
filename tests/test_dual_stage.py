"""The DualStyleGAN of a bundle: its stages resume to the bit, leave what is shared alone, and are measured honestly."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_pairs import styled
from PIL import Image
from tiny_training import HOLD_OUT, SMALL, distilled, equal, fresh, killed_after, parsing_net, state

from vtoonify_lib.config import TINY, VToonifyError
from vtoonify_lib.evaluation import metrics
from vtoonify_lib.media.images import to_tensor
from vtoonify_lib.models.encoders import StyleEncoder
from vtoonify_lib.training import augment, dual_stage, exemplars, loop
from vtoonify_lib.training.loop import Stage
from vtoonify_lib.weights.bundle import save_bundle

pytestmark = pytest.mark.usefixtures("one_thread")
LOOKS, PER_LOOK, D = ("storybook", "comic"), 2, TINY.generator.style_dim
STAGES = (Stage(32, 3, 2), Stage(64, 3, 2))
FOLDERS = ("lessons-32", "lessons-64")


@pytest.fixture(scope="module")
def styles(pairs):
    return styled(pairs, LOOKS)


@pytest.fixture(scope="module")
def shown(styles):
    return exemplars.Exemplars.from_pairs(styles, LOOKS, PER_LOOK, HOLD_OUT, 32)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A bundle with what the stages begin with."""
    base, models = distilled(), {"parsing": {"widths": [8, 16, 16]},
                                 "style_encoder": {"n_latent": 1, "style_dim": D, **SMALL}}
    networks = {"base": base.generator, "style_encoder": base.encoder, "parsing": parsing_net()}
    return save_bundle(tmp_path_factory.mktemp("start"), name="start", title="", config=TINY, networks=networks,
                       models=models, half=False)


@pytest.fixture(scope="module")
def style():
    return fresh(StyleEncoder, 9, n_latent=2, style_dim=D, **SMALL).eval()


@pytest.fixture
def train(styles, start, style, shown):
    """`train_dual`, here."""
    codes = np.random.default_rng(0).normal(size=(5, 2, D)).astype(np.float32)

    def run(folder, **more):
        return dual_stage.train_dual(styles, start, style, shown, folder, HOLD_OUT, STAGES, codes, **more)

    return run


def test_the_base_is_the_bundles(start):
    base, photo = dual_stage.base_of(start), torch.randn(2, 3, 32, 32)
    assert torch.equal(base(photo), distilled()(photo))


def test_its_stages_teach_the_path_and_leave_base_and_codes_alone(train, style, tmp_path):
    model = train(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FOLDERS)
    assert equal(state(model.style), state(style)) and equal(state(model.encoder), state(distilled().encoder))
    assert equal(state(model.generator.generator), state(distilled().generator))
    kept = [torch.load(tmp_path / name / "last.pt", weights_only=True)["ema"] for name in FOLDERS]
    for name in ("generator.res.0.conv.0.weight", "generator.style.1.weight", "generator.res.7.weight"):
        values = [weights[name] for weights in kept]
        assert not torch.equal(*values) and torch.equal(values[1], model.state_dict()[name]), name
    heights = [Image.open(tmp_path / name / "samples" / "0000003.jpg").size for name in FOLDERS]
    assert heights == [(2 * 32, 4 * 32), (2 * 64, 4 * 64)]


def test_every_stage_can_be_stopped_and_ends_in_the_same_weights(train, tmp_path):
    whole = train(tmp_path / "a")
    for done in ([2, 0], [3, 1]):
        with killed_after(2), pytest.raises(KeyboardInterrupt):
            train(tmp_path / "b")
        assert [loop.iterations_done(tmp_path / "b" / name) for name in FOLDERS] == done
    assert equal(state(whole), state(train(tmp_path / "b")))


def test_a_finished_run_reads_no_portraits(train, tmp_path, monkeypatch):
    whole = train(tmp_path)
    monkeypatch.setattr(augment, "aligned", None)
    assert equal(state(whole), state(train(tmp_path)))


def test_half_of_the_orders_tell_the_code_of_their_style(styles, shown):
    codes, told = np.random.default_rng(0).normal(size=(5, 2, D)).astype(np.float32), []

    def source(known):
        return exemplars.portrait_source(styles, shown, 4, 32, HOLD_OUT, 1, known)

    for i in range(16):
        _, target, condition = source(codes)(i)
        assert torch.equal(condition.codes, torch.from_numpy(codes)[condition.index]) and target.shape[-1] == 32
        told += condition.use_table_code.tolist()
    assert 0.3 < np.mean(told) < 0.7
    assert torch.equal(*(source(codes)(3)[2].use_table_code for _ in range(2))) and source(None)(3)[2].codes is None


class Grey(torch.nn.Module):
    """Draws grey pictures and keeps what it was asked for."""

    def __init__(self):
        super().__init__()
        self.generator, self.encoder, self.asked = SimpleNamespace(config=TINY.generator), distilled().encoder, []

    def forward(self, photo, condition):
        self.asked.append((photo, condition))
        return torch.zeros(len(photo), 3, TINY.generator.size, TINY.generator.size)


def test_measured_on_held_out_people_at_their_own_degrees(styles, shown):
    arrays = {name: np.array(array) for name, array in styles.arrays.items()}
    arrays["comic_structure"][:3], arrays["comic_color"][:3] = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    styles = type(styles)(styles.folder, arrays, styles.ready)
    model, unseen = Grey(), np.array([0, 2])
    report = dual_stage.measure_dual(model, styles, HOLD_OUT, parsing_net(), shown, batch=1)
    assert report["people"] == 2 and list(report) == ["people", "base", *LOOKS]
    photo, comic = (to_tensor(augment.aligned(styles, unseen, look, 64, calm=True)) for look in ("photo", "comic"))
    assert report["base"]["psnr"] == pytest.approx(float(metrics.psnr(photo * 0, photo).mean()), abs=1e-3)
    assert report["comic"]["psnr"] == pytest.approx(float(metrics.psnr(comic * 0, comic).mean()), abs=1e-3)
    assert report["comic"]["input_psnr"] == pytest.approx(float(metrics.psnr(photo, comic).mean()), abs=1e-3)
    assert report["comic"]["input_feature"] == pytest.approx(
        metrics.feature_distance(parsing_net(), photo, comic).mean().item(), abs=1e-3)
    assert "input_psnr" not in report["base"] and report["comic"]["feature"] > 0
    conditions = [condition for _, condition in model.asked]
    assert [float(o.structure) for o in conditions] == pytest.approx([0, 0, 1, 1, 0.1, 0.3])
    assert [float(o.color) for o in conditions] == pytest.approx([0, 0, 1, 1, 0.4, 0.6])
    assert [int(o.index) for o in conditions[2:]] == [0, 1, 2, 3]
    assert all(photo.shape == (1, 3, 32, 32) for photo, _ in model.asked)


def test_measuring_needs_held_out_people(styles, shown):
    with pytest.raises(VToonifyError, match="none of the first 0 people .* are aligned; hold out more"):
        dual_stage.measure_dual(Grey(), styles, 0, parsing_net(), shown)
