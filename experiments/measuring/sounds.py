"""Files and pictures of sounds."""

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np


def write_sound(path: Path, sound: np.ndarray, rate: int) -> None:
    """Write samples between -1 and 1 as a file of 16 bits in one channel."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes(np.round(sound * (2**15 - 1)).astype("<i2").tobytes())


def draw(path: Path, sounds: Mapping[str, Sequence[np.ndarray]], rate: int) -> None:
    """Draw the waveforms and spectrograms of sounds, a row for each place in the sequences.

    Every sound is scaled to a largest value of 1.

    Args:
        path: the picture to write.
        sounds: sequences of sounds `(T,)`, by the title of their columns.
        rate: samples in a second.
    """
    num_rows = min(map(len, sounds.values()))
    shape, size = (num_rows, 2 * len(sounds)), (10, 0.4 + 0.9 * num_rows)
    figure, axes = plt.subplots(
        *shape, figsize=size, sharex=True, squeeze=False, layout="constrained"
    )
    for column, (title, some) in enumerate(sounds.items()):
        lines, pictures = axes[:, column], axes[:, len(sounds) + column]
        lines[0].set_title(f"{title}: waveform", fontsize=10)
        pictures[0].set_title(f"{title}: spectrogram, to {rate / 2000:g} kHz", fontsize=10)
        for sound, line, picture in zip(some, lines, pictures, strict=True):
            scaled = sound / np.abs(sound).max()
            line.plot(np.arange(len(sound)) / rate, scaled, linewidth=0.4)
            line.set(ylim=(-1.05, 1.05), yticks=[])
            picture.specgram(
                scaled, NFFT=128, Fs=rate, noverlap=64, vmin=-100, vmax=-30, interpolation="nearest"
            )
            picture.set(yticks=[])
    for number, axis in enumerate(axes[:, 0]):
        axis.set_ylabel(str(number), rotation=0, fontsize=13, labelpad=10, va="center")
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    figure.savefig(path, dpi=100)
    plt.close(figure)
