# SPDX-License-Identifier: Apache-2.0
"""From light to bytes: order kept, exposure automatic, noise as wide as stated."""

from __future__ import annotations

from mtl_perception.simulation.sensor import develop, Sensor
import numpy as np
import pytest


def ramp(scale: float = 1.0) -> np.ndarray:
    """Return grey light that grows from left to right, (40, 60, 3)."""
    row = np.linspace(0.02, 1.0, 60, dtype=np.float32) * np.float32(scale)
    return np.repeat(np.repeat(row[None, :, None], 40, axis=0), 3, axis=2)


def test_brighter_light_is_brighter():
    """The tone curve never falls, and grey stays grey."""
    image = develop(ramp(), Sensor())
    assert (np.diff(image[0, :, 0].astype(int)) >= 0).all()
    assert image[0, -1, 0] > image[0, 0, 0] + 100
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize('scale', [0.05, 1.0, 40.0])
def test_exposure_follows_the_light(scale):
    """A scene a thousand times brighter gives the same picture."""
    expected = develop(ramp(), Sensor()).astype(int)
    assert np.abs(develop(ramp(scale), Sensor()) - expected).max() <= 8


def test_white_balance_and_vignetting_do_what_they_say():
    """Red gain raises red; corners lose light, the middle does not."""
    flat = np.full((41, 61, 3), 0.3, np.float32)
    plain = develop(flat, Sensor()).astype(int)
    warm = develop(flat, Sensor(white_balance=(1.2, 1.0, 0.8))).astype(int)
    assert warm[0, 0, 0] > plain[0, 0, 0] == warm[0, 0, 1] > warm[0, 0, 2]
    dark = develop(flat, Sensor(vignetting=0.4)).astype(int)
    assert dark[20, 30, 0] == plain[20, 30, 0]
    assert dark[0, 0, 0] < plain[0, 0, 0] - 10
    # Against the stated loss: a frame with 40 % less light all over.
    assert abs(dark[0, 0, 0] - develop(flat, Sensor(exposure=0.6)).astype(int)[0, 0, 0]) <= 1


def test_photon_noise_grows_as_the_root():
    """In linear light the deviation is proportional to the root of the level."""
    light = np.full((300, 300, 3), 0.2, np.float32)
    light[:, 150:] = 0.8
    chart = light.copy()
    # A few pixels 20 % brighter tell the slope of the tone curve, too few to move the exposure.
    chart[1:3, 1:3] *= 1.2
    chart[1:3, -3:-1] *= 1.2
    clean = develop(chart, Sensor()).astype(float)
    noisy = develop(light, Sensor(shot_noise=0.03), noise_seed=5).astype(float)
    deviation = []
    for pixel, plain, side in ((1, 20, slice(10, 140)), (-2, -20, slice(160, 290))):
        rise = clean[1, pixel, 0] - clean[1, plain, 0]
        slope = rise / (0.2 * light[1, pixel, 0])
        assert abs(noisy[:, side].mean() - clean[10:, side].mean()) < 1
        deviation.append(noisy[:, side].std() / slope)
    assert deviation[1] / deviation[0] == pytest.approx(2.0, rel=0.12)


def test_drawn_sensors_differ():
    """Same seed, same sensor; other seeds, others; all plausible."""
    assert Sensor.draw(3) == Sensor.draw(3)
    sensors = {Sensor.draw(seed) for seed in range(30)}
    assert len(sensors) == 30
    assert all(0 <= sensor.vignetting <= 0.4 and sensor.shot_noise >= 0 for sensor in sensors)
