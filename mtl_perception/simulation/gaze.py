# SPDX-License-Identifier: Apache-2.0
"""Where a walking camera looks: ahead, or at one piece of furniture after another."""

from __future__ import annotations

import math

from mtl_perception.simulation.world import RoomsWorld
import numpy as np
import numpy.typing as npt

_FREE_SIGHT_M = 1.3
Poses = npt.NDArray[np.float64]


def choose_gaze(
    world: RoomsWorld, rng: np.random.Generator, time: Poses, position: Poses, ahead: Poses
) -> Poses:
    """
    Return the unit viewing directions (n, 3): ahead, or at one thing after another.

    Every few seconds a new target is drawn among what stands within 0.6 to 4.5 m in plain
    sight; in between the view turns smoothly.
    """
    targets = np.array([
        ((x0 + x1) / 2, (y0 + y1) / 2, z0 + (z1 - z0) * 0.6)
        for x0, y0, z0, x1, y1, z1 in world.occupancy.things
    ]).reshape(-1, 3)
    # Furniture is looked at more than what hangs, and large pieces more than small ones.
    appeal = np.array([
        (math.sqrt((x1 - x0) * (y1 - y0)) + 0.2) * (1.0 if z0 < 0.9 else 0.12)
        for x0, y0, z0, x1, y1, _ in world.occupancy.things
    ])
    interval = float(rng.uniform(3.0, 5.0))
    curiosity = float(rng.uniform(0.6, 0.97))
    level = math.radians(float(rng.uniform(-20, 2)))
    knots = np.arange(0.0, time[-1] + 2 * interval, interval)
    directions: list[Poses] = []
    for knot in knots:
        index = min(len(time) - 1, int(np.searchsorted(time, knot)))
        here, forward = position[index], ahead[index]
        angle = math.atan2(forward[1], forward[0]) + rng.normal(0, 0.4)
        choice = np.array([
            math.cos(angle) * math.cos(level), math.sin(angle) * math.cos(level), math.sin(level)
        ])
        offsets = targets - here
        distance = np.linalg.norm(offsets, axis=1)
        near = np.flatnonzero((distance > 0.6) & (distance < 4.5))
        # Nobody stares at a wall a step away.
        blocked = world.shadows.is_blocked(
            here[None].astype(np.float32), choice[None].astype(np.float32), _FREE_SIGHT_M
        )[0]
        if len(near) and (blocked or rng.random() < curiosity):
            rays = offsets[near].astype(np.float32)
            origins = np.broadcast_to(here.astype(np.float32), rays.shape)
            seen = near[~world.shadows.is_blocked(origins, rays, 0.6)]
            if len(seen):
                # The head turns a little rather than right round.
                turn = offsets[seen] @ (directions[-1] if directions else choice) / distance[seen]
                weight = appeal[seen] / np.maximum(distance[seen], 1.0) * (1.1 + turn) ** 2
                pick = int(rng.choice(seen, p=weight / weight.sum()))
                choice = offsets[pick] / distance[pick]
        directions.append(choice)
    keys = np.array(directions)
    step = np.minimum((time / interval).astype(int), len(keys) - 2)
    share = np.clip(time / interval - step, 0, 1)
    share = (share * share * (3 - 2 * share))[:, None]
    # Turn about the vertical and nod separately: a straight blend would look at the floor
    # or the ceiling half way through a turn.
    yaw = np.unwrap(np.arctan2(keys[:, 1], keys[:, 0]))
    nod = np.arcsin(np.clip(keys[:, 2], -0.75, 0.35))
    turn = yaw[step] * (1 - share[:, 0]) + yaw[step + 1] * share[:, 0]
    tilt = nod[step] * (1 - share[:, 0]) + nod[step + 1] * share[:, 0]
    return np.stack(
        (np.cos(turn) * np.cos(tilt), np.sin(turn) * np.cos(tilt), np.sin(tilt)), axis=-1
    )
