# SPDX-License-Identifier: Apache-2.0
"""From light to bytes: exposure, white balance, lens fall-off, blur, noise, tone curve."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
from mtl_perception.simulation.mesh import Floats
import numpy as np
import numpy.typing as npt

_LEVELS = 4096


@dataclass(frozen=True)
class Sensor:
    """A camera's habits; the defaults are a perfect one."""

    exposure: float = 1.0  # factor on the automatic exposure
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    vignetting: float = 0.0  # share of light lost in the corners
    blur_px: float = 0.0  # standard deviation of the lens blur
    shot_noise: float = 0.0  # standard deviation at full scale, in full scales
    read_noise: float = 0.0  # standard deviation in the dark, in full scales
    contrast: float = 1.0  # slope of the tone curve at mid grey

    @classmethod
    def draw(cls, seed: int) -> Sensor:
        """Draw a plausible camera, from clean to poor."""
        rng = np.random.default_rng((seed, 0x5E50))
        tint = np.exp(rng.normal(0, 0.07, 3))
        noise = float(rng.exponential(0.4))
        return cls(
            exposure=float(np.exp(rng.normal(0, 0.28))),
            white_balance=(float(tint[0]), float(tint[1]), float(tint[2])),
            vignetting=float(rng.uniform(0, 0.35)),
            blur_px=float(rng.choice((0.0, rng.uniform(0.35, 0.9)))),
            shot_noise=0.02 * noise,
            read_noise=0.004 * noise,
            contrast=float(rng.uniform(0.85, 1.25)),
        )


def _tone_curve(contrast: float) -> npt.NDArray[np.float32]:
    """Return the table from linear light (square-root spaced) to 0..255: gamma with a shoulder."""
    linear = (np.arange(_LEVELS, dtype=np.float64) / (_LEVELS - 1)) ** 2
    # Light up to three times full scale is rolled off instead of cut.
    light = 3 * linear
    rolled = light * (1 + light / 9) / (1 + light)
    encoded = rolled ** (1 / 2.2)
    middle = 0.5
    return np.asarray(255 * np.clip(middle + (encoded - middle) * contrast, 0, 1), np.float32)


def _automatic_gain(radiance: Floats) -> float:
    """Return the gain that brings the frame's typical light to mid grey."""
    grey = radiance[::4, ::4].mean(axis=-1)
    typical = float(np.exp(np.log(grey + 1e-3).mean()))
    bright = float(np.quantile(grey, 0.9))
    return min(0.3 / max(typical, 2e-3), 4.0 / max(bright, 2e-3))


def develop(radiance: Floats, sensor: Sensor, noise_seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return the image (H, W, 3) uint8 RGB of linear light (H, W, 3)."""
    height, width = radiance.shape[:2]
    gain = _automatic_gain(radiance) * sensor.exposure
    gains = np.asarray(sensor.white_balance, np.float32) * np.float32(gain / 3)
    light = radiance * gains
    if sensor.blur_px > 0:
        light = cv2.GaussianBlur(np.minimum(light, 1), (0, 0), sensor.blur_px * width / 640)
    if sensor.vignetting > 0:
        x = np.linspace(-1, 1, width, dtype=np.float32)
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        light *= (1 - np.float32(sensor.vignetting / 2) * (x * x + y * y))[..., None]
    index = np.sqrt(np.clip(light, 0, 1))
    if sensor.shot_noise > 0 or sensor.read_noise > 0:
        # On the square-root scale photon noise has the same width everywhere.
        rng = np.random.default_rng((noise_seed, 0x401))
        grain = rng.standard_normal(light.shape, np.float32)
        width_dark = np.float32(sensor.read_noise) / (index + np.float32(0.05))
        index += grain * (np.float32(sensor.shot_noise / 2) + width_dark / 2)
        np.clip(index, 0, 1, out=index)
    table = _tone_curve(sensor.contrast)
    return np.asarray(table[(index * (_LEVELS - 1)).astype(np.int32)] + 0.5, np.uint8)
