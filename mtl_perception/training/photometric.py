# SPDX-License-Identifier: Apache-2.0
"""Variation of light, colour, sensor and compression: rendered frames must not be all it knows."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

# RGB to YIQ: a rotation of (I, Q) turns the hue and leaves the luminance.
_TO_YIQ = np.array(
    [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], np.float64
)
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def _colour_matrix(strength: float, generator: np.random.Generator) -> npt.NDArray[np.float64]:
    """Saturation, hue and the white balance of the lamp in one 3x3 matrix."""
    saturation = generator.uniform(1 - 0.8 * strength, 1 + 0.5 * strength)
    angle = generator.normal(0.0, 0.2 * strength)
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    balance = np.diag(np.exp(generator.normal(0.0, 0.12 * strength, 3)))
    return np.asarray(balance @ _FROM_YIQ @ turn @ _TO_YIQ)


def _tone_table(strength: float, generator: np.random.Generator) -> npt.NDArray[np.float32]:
    """Gamma, contrast and exposure of a byte value, as float in 0..255 or beyond."""
    values = np.arange(256, dtype=np.float64) / 255
    values = values ** np.exp(generator.normal(0.0, 0.3 * strength))
    contrast = np.exp(generator.normal(0.0, 0.25 * strength))
    exposure = np.exp(generator.normal(0.0, 0.25 * strength))
    middle = generator.uniform(0.3, 0.6)
    return np.asarray(255 * exposure * (middle + contrast * (values - middle)), np.float32)


def _blurred(image: Image, strength: float, generator: np.random.Generator) -> Image:
    if generator.random() < 0.5:
        sigma = generator.uniform(0.3, 0.3 + 1.2 * strength)
        return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    # A moving camera: a line of random direction.
    length = 2 * int(generator.integers(1, 2 + round(2 * strength))) + 1
    kernel = np.zeros((length, length), np.float32)
    angle = generator.uniform(0, np.pi)
    reach = (length - 1) / 2 * np.array([np.cos(angle), np.sin(angle)])
    middle = np.full(2, (length - 1) / 2)
    first, last = ((middle + sign * reach).round().astype(int) for sign in (-1, 1))
    cv2.line(kernel, tuple(map(int, first)), tuple(map(int, last)), 1.0)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.uint8)


# What SSD's distortion of colours varies at full strength, each half of the time.
_BRIGHTNESS = 32.0  # grey levels added, either way
_CONTRAST = _SATURATION = 0.5  # a factor between 1 less and 1 plus this
_HUE_DEG = 36.0


def distort_colours(image: Image, strength: float, generator: np.random.Generator) -> Image:
    """
    Return the frame with other brightness, contrast, saturation and hue, as DeMT is trained.

    Each varies in half of the frames, uniformly; contrast comes before or after the colours.
    Liu et al., SSD (ECCV 2016), 3.6 of its arXiv version.

    :param image: uint8 (H, W, 3) RGB
    :param strength: 0 leaves the frame unchanged; 1 is the published range
    """
    if strength == 0:
        return image

    def drawn(reach: float) -> float:
        return generator.uniform(-reach, reach) * strength if generator.random() < 0.5 else 0.0

    brightness, contrast = drawn(_BRIGHTNESS), 1 + drawn(_CONTRAST)
    saturation, hue = 1 + drawn(_SATURATION), drawn(_HUE_DEG)
    contrast_last = generator.random() < 0.5
    pixels = image + np.float32(brightness)
    if not contrast_last:
        pixels *= np.float32(contrast)
    hsv = cv2.cvtColor(np.clip(pixels, 0, 255) / np.float32(255), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + hue) % 360
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
    pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * np.float32(255)
    if contrast_last:
        pixels *= np.float32(contrast)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def vary_photometry(image: Image, strength: float, generator: np.random.Generator) -> Image:
    """
    Return the frame as another camera under another light might have given it.

    Tone (gamma, contrast, exposure) and colour (saturation, hue, white balance) always; noise,
    blur or motion blur, vignetting and JPEG artefacts often. No pixel moves.

    :param image: uint8 (H, W, 3) RGB
    :param strength: 0 leaves the frame unchanged, 1 is strong
    """
    if strength == 0:
        return image
    height, width = image.shape[:2]
    tone = _tone_table(strength, generator)
    # cv2.transform, not a matrix product: BLAS would take the cores the network computes on.
    pixels = np.asarray(cv2.transform(tone[image], _colour_matrix(strength, generator)))
    if generator.random() < 0.3:
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        fall = generator.uniform(0, 0.35 * strength)
        pixels *= (1 - fall * (x * x + y * y) / 2).astype(np.float32)[..., None]
    if generator.random() < 0.5:
        sigma = generator.uniform(0, 12 * strength)
        pixels += sigma * generator.standard_normal(pixels.shape, np.float32)
    varied = np.clip(pixels, 0, 255).astype(np.uint8)
    if generator.random() < 0.4:
        varied = _blurred(varied, strength, generator)
    if generator.random() < 0.4:
        quality = int(generator.integers(round(95 - 65 * strength), 96))
        done, data = cv2.imencode('.jpg', varied, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if done:
            varied = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return varied
