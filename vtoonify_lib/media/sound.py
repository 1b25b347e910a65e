"""The sound of one video file on its way into another: copied packet for packet, or encoded anew where it must be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from . import reading

MP4_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"})
SOUND = {
    "mp4": MP4_SOUND,
    "mov": MP4_SOUND - {"opus", "flac"} | {"pcm_s16le", "pcm_s16be", "pcm_s24le"},
    "matroska": MP4_SOUND | {"vorbis", "mp2", "pcm_s16le", "pcm_s24le"},
    "webm": frozenset({"opus", "vorbis"}),
}
"""Sound that players accept in each container; anything else is encoded anew."""

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


class SoundTrack:
    """The sound track of the open container `source` becomes a stream of `out`.

    container  FFmpeg's name of the output format
    start      seconds, subtracted from every time, as for the frames
    A track that breaks off ends there.
    """

    def __init__(self, source: Any, out: Any, container: str, start: Fraction):
        self._out, self._source, self._track = out, source, reading.sound_stream(source)
        self._shift = round(start / reading.fraction(self._track.time_base))
        if self._track.codec_context.codec.canonical_name in SOUND[container]:
            self._stream = out.add_stream_from_template(self._track)
            packets = self._copied()
        else:
            self._stream = self._new_stream("libopus" if container == "webm" else "aac")
            packets = self._encoded()
        self._stream.metadata.update({key: value for key, value in self._track.metadata.items() if key == "language"})
        self._packets = packets
        self._next = next(packets, None)

    def mux_until(self, moment: Fraction | None) -> None:
        """Write the packets that begin up to `moment` seconds; all that are left for None."""
        while self._next is not None:
            if moment is not None and reading.seconds(self._next.dts, self._next.time_base) > moment:
                return
            self._out.mux(self._next)
            self._next = next(self._packets, None)

    def _read(self) -> Iterator[Any]:
        """Packets with times that go on, also where the file's clock begins anew, as that of the frames."""
        shift, last, end = -self._shift, None, 0
        jump = reading.JUMP / reading.fraction(self._track.time_base)
        with suppress(av.FFmpegError):
            for packet in self._source.demux(self._track):
                if packet.dts is None:
                    continue
                if last is not None and packet.dts + shift < last - jump:
                    shift = end - packet.dts
                late = 0 if packet.pts is None else packet.pts - packet.dts
                packet.dts = packet.dts + shift if last is None else max(packet.dts + shift, last + 1)
                packet.pts = packet.dts + late
                last, end = packet.dts, packet.dts + max(packet.duration or 0, 1)
                yield packet

    def _copied(self) -> Iterator[Any]:
        for packet in self._read():
            packet.stream = self._stream
            yield packet

    def _new_stream(self, encoder: str) -> Any:
        source = self._track.codec_context
        rate = source.sample_rate if source.sample_rate in AAC_RATES and encoder == "aac" else 48000
        layout = {1: "mono", 6: "5.1"}.get(source.layout.nb_channels, "stereo")
        return self._out.add_stream(encoder, rate=rate, layout=layout)

    def _encoded(self) -> Iterator[Any]:
        encoder = self._stream.codec_context
        encoder.open()  # fixes the frame size
        resampler = av.AudioResampler(encoder.format, encoder.layout, encoder.sample_rate, encoder.frame_size)
        for frame in self._decoded():
            for piece in resampler.resample(frame):
                yield from self._stream.encode(piece)
        yield from self._stream.encode(None)

    def _decoded(self) -> Iterator[Any]:
        """Sound frames, then None, which empties the resampler."""
        for packet in self._read():
            with suppress(av.FFmpegError):
                yield from packet.decode()
        with suppress(av.FFmpegError):
            yield from self._track.codec_context.decode(None)
        yield None
