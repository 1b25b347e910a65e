"""A picture, or a few seconds, from the webcam: ipywebrtc in Jupyter, a snippet of JavaScript on Colab.

Nothing is recorded before the button is pressed, and nothing leaves the machine that the notebook runs on.
"""

from __future__ import annotations

import tempfile
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from ...config import VToonifyError
from ...media.images import read_image
from .parts import Status

SIZE = (640, 480)

COLAB_SNIPPET = """
(async () => {
  const video = document.createElement('video');
  const button = document.createElement('button');
  const stream = await navigator.mediaDevices.getUserMedia({video: {width: %d, height: %d}, audio: %s});
  video.srcObject = stream; video.muted = true; button.textContent = %s;
  document.body.append(video, button);
  await video.play();
  google.colab.output.setIframeHeight(document.documentElement.scrollHeight, true);
  await new Promise(resolve => button.onclick = resolve);
  const answer = await (%s)(video, stream);
  stream.getTracks().forEach(track => track.stop());
  video.remove(); button.remove();
  return answer;
})()
"""
STILL = """async video => {
  const canvas = document.createElement('canvas');
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  canvas.getContext('2d').drawImage(video, 0, 0);
  return canvas.toDataURL('image/jpeg', 0.92);
}"""
MOVING = """async (video, stream) => {
  const recorder = new MediaRecorder(stream), parts = [];
  recorder.ondataavailable = event => parts.push(event.data);
  const ended = new Promise(resolve => recorder.onstop = resolve);
  recorder.start();
  await new Promise(resolve => setTimeout(resolve, %d));
  recorder.stop();
  await ended;
  const reader = new FileReader();
  const read = new Promise(resolve => reader.onload = resolve);
  reader.readAsDataURL(new Blob(parts, {type: recorder.mimeType}));
  await read;
  return reader.result;
}"""


class Camera:
    """The webcam in Jupyter: `camera = Camera(); camera.view` shows it; then `.snapshot()`, or `.clip()` for a file.

    on_picture, on_clip: callbacks with the recording, uint8 RGB [H,W,3] or the path of a .webm file.
    VToonifyError when ipywebrtc is not installed, and from `snapshot` and `clip` before anything was recorded.
    """

    def __init__(self, on_picture: Callable[[np.ndarray], None] | None = None,
                 on_clip: Callable[[Path], None] | None = None, folder: str | Path | None = None) -> None:
        try:
            from ipywebrtc import CameraStream, ImageRecorder, VideoRecorder
        except ImportError as error:
            raise VToonifyError("the webcam needs ipywebrtc, which is not installed: pip install ipywebrtc; or pick a "
                                "file") from error
        self.folder = Path(folder or tempfile.mkdtemp(prefix="vtoonify-"))
        self.status = Status()
        self.stream = CameraStream(constraints={"video": {"width": SIZE[0], "height": SIZE[1]}, "audio": True})
        self.still = ImageRecorder(stream=self.stream, format="jpeg", filename=str(self.folder / "snapshot.jpeg"))
        self.moving = VideoRecorder(stream=self.stream, format="webm", filename=str(self.folder / "recording.webm"))
        self.still.image.observe(lambda _: self._tell(on_picture, self.snapshot), "value")
        self.moving.video.observe(lambda _: self._tell(on_clip, self.clip), "value")
        self.view = widgets.VBox([self.stream, widgets.HBox([self.still, self.moving]), self.status])

    def snapshot(self) -> np.ndarray:
        """The picture that was taken last, uint8 RGB [H,W,3]."""
        return read_image(self._written("snapshot.jpeg", self.still.image.value, "no picture was taken yet; press the "
                                        "button under the camera's picture first"))

    def clip(self) -> Path:
        """The recording that was made last, a .webm file."""
        return self._written("recording.webm", self.moving.video.value, "nothing was recorded yet; press the record "
                             "button, speak, and press it again")

    def _written(self, name: str, data: bytes, missing: str) -> Path:
        """A recording as a file; VToonifyError, the sentence `missing`, when there is none."""
        if not data:
            raise VToonifyError(missing)
        path = self.folder / name
        path.write_bytes(bytes(data))
        return path

    def _tell(self, callback: Callable | None, what: Callable) -> None:
        if callback:
            with self.status.guard("reading what the camera saw"):
                callback(what())


def colab_snapshot(folder: str | Path = "out", seconds: float | None = None) -> Path:
    """On Colab: show the camera and a button, and wait for it → the picture, or a clip of `seconds`, as a file.

    VToonifyError outside of Colab, when the browser gives no camera, or sends no picture.
    """
    try:
        from google.colab.output import eval_js
    except ImportError as error:
        raise VToonifyError("this works on Colab only; elsewhere use panels.Camera, or pick a file") from error
    wanted = STILL if seconds is None else MOVING % round(1000 * seconds)
    title = "'Take the picture'" if seconds is None else f"'Record {seconds:g} seconds'"
    try:
        answer = str(eval_js(COLAB_SNIPPET % (*SIZE, "false" if seconds is None else "true", title, wanted)))
    except Exception as error:  # whatever the browser answered: no permission, no camera, no frame
        raise VToonifyError(f"the browser gave no camera ({error}); allow it in the address bar, or pick a file"
                            ) from error
    kind, comma, content = answer.partition(",")
    if not kind.startswith("data:") or not comma or not content:
        raise VToonifyError("the browser sent no picture; try again, or pick a file")
    path = Path(folder) / ("snapshot.jpg" if seconds is None else "recording.webm")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b64decode(content))
    return path
