"""What several test files share: a tiny bundle with its Toonifier, published files, what training is tested on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import published_files
import pytest
import torch
from fake_pairs import write_pairs
from people import SIZE, Z, photographed, train_landmarks
from tiny_training import frozen_generator, parsing_net

from vtoonify_lib.config import TINY, VToonifyConfig, VToonifyError
from vtoonify_lib.models.encoders import ParsingNet, StyleEncoder
from vtoonify_lib.models.vtoonify import VToonify
from vtoonify_lib.models.vtoonify_d import build_vtoonify
from vtoonify_lib.studio.people import person
from vtoonify_lib.weights.bundle import Bundle, save_bundle
from vtoonify_lib.weights.published import PRESETS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The notebooks first, which take longest: with `--dist loadfile` the others would be done long before."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


@pytest.fixture(scope="session")
def landmark_file(tmp_path_factory) -> Path:
    """A dlib shape predictor for the one face of the tests."""
    return train_landmarks(tmp_path_factory.mktemp("landmarks") / "landmarks.dat")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, landmark_file) -> Bundle:
    """The bundle `tiny` in a models folder of its own; its weights are random."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        models = {"parsing": {"widths": [8, 8, 16]},
                  "style_encoder": {"image_size": 32, "n_latent": 1,
                                    "style_dim": TINY.generator.style_dim, "width": 8}}
        networks = {"vtoonify": VToonify(TINY), "parsing": ParsingNet(**models["parsing"]),
                    "style_encoder": StyleEncoder(**models["style_encoder"])}
    return save_bundle(tmp_path_factory.mktemp("models") / "tiny", name="tiny", title="For tests", config=TINY,
                       networks=networks, files={"landmarks": landmark_file}, models=models,
                       provenance={"trained": "not at all"}, metrics={"psnr": 9.5, "note": "random"})


@pytest.fixture(scope="session")
def detailed(tiny_bundle, tmp_path_factory) -> Bundle:
    """A bundle that carries the photograph's detail over, and all of it: its cartoons are the photographs."""
    net, models = carrying(replace(TINY, detail=8)), tiny_bundle.info["models"]
    others = {name: tiny_bundle.network(name) for name in ("parsing", "style_encoder")}
    return save_bundle(tmp_path_factory.mktemp("models") / "detailed", name="detailed", title="", config=net.config,
                       networks={"vtoonify": net, **others}, files={"landmarks": tiny_bundle.path("landmarks")},
                       models={name: models[name] for name in others})


def carrying(config: VToonifyConfig) -> VToonify:
    """A random network whose mask lets all of the photograph through."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_vtoonify(config).eval().requires_grad_(False)
    net.detail.pixels.bias[3 * net.detail.finer**2:] = 30.0
    return net


@pytest.fixture(scope="session")
def toonifier(tiny_bundle):
    from vtoonify_lib.inference.toonifier import Toonifier

    return Toonifier.load(tiny_bundle.folder, device="cpu")


@pytest.fixture(scope="session")
def studio():
    """A small studio, or a skipped test."""
    from vtoonify_lib.studio.render import Studio

    try:
        return Studio(size=128)
    except VToonifyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def photo_studio():
    """What draws photographs, or a skipped test."""
    from vtoonify_lib.studio.photo_cartoon import PhotoStudio

    try:
        return PhotoStudio()
    except VToonifyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def camera_studio(photo_studio):
    """What renders people for it."""
    from vtoonify_lib.studio.render import Studio

    return Studio(photo_studio.studio.kit, SIZE)


@pytest.fixture(scope="module")
def sit(photo_studio, camera_studio):
    """Somebody's render as a fitted photograph, prepared; changes of `Person` as keywords."""
    def prepared(**changes):
        posed = person(Z).with_(**{"hair": None, "glasses": None, "pose": np.array([0.1, 0.0, 0.05]), **changes})
        fit, parsing = photographed(camera_studio, posed)
        return photo_studio.prepare(fit, np.eye(19, dtype=np.float32)[parsing])

    return prepared


@pytest.fixture(scope="module")
def plain(sit):
    """That person as they are."""
    return sit()


# -- the published checkpoints' files, small ---------------------------------------------------------------------------
@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    return published_files.empty_cache(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    both = (PRESETS[name] for name in ("pixar-d", "pixar-t"))
    return published_files.write_repository(tmp_path_factory.mktemp("repository"), *both)


@pytest.fixture
def repository(pristine, tmp_path) -> Path:
    return published_files.linked(pristine, tmp_path / "repository")


@pytest.fixture(scope="module")
def files(tmp_path_factory, landmark_file) -> Path:
    return published_files.write_files(tmp_path_factory.mktemp("files"), landmark_file)


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory, files) -> Path:
    return published_files.fill_cache(tmp_path_factory.mktemp("cache"), files)


@pytest.fixture
def ready(filled_cache, monkeypatch) -> Path:
    """Everything is on this machine."""
    monkeypatch.setenv("VTOONIFY_CACHE", str(filled_cache))
    return filled_cache


# -- training: module-wide, so that no file sees what another has changed ---------------------------------------------
@pytest.fixture(scope="module")
def one_thread():
    """Tiny networks are fastest, and the same to the bit, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A data set of flat faces in the studio's folder format."""
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs")


@pytest.fixture(scope="module")
def parsing() -> ParsingNet:
    return parsing_net()


@pytest.fixture(scope="module")
def base():
    """The generator that stands for photographs."""
    return frozen_generator(1)


@pytest.fixture(scope="module")
def stylised():
    """The generator that stands for cartoons."""
    return frozen_generator(2)
