# SPDX-License-Identifier: Apache-2.0
"""The Fast DDS profile without which images and clouds get lost between processes."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
import os
from pathlib import Path
import shutil

from mtl_perception.ros.errors import RosError

LARGE_MESSAGES = 'fastdds_large_messages.xml'
SMALL_SHARED_MEMORY = 'fastdds_small_shared_memory.xml'
PROFILE_VARIABLE = 'FASTDDS_DEFAULT_PROFILES_FILE'
# What Fast DDS 2.6 and 2.10 read; newer ones call it deprecated, so only one name is set.
OLD_PROFILE_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
_OLD_DISTRIBUTIONS = ('humble', 'iron')
_REACH_VARIABLE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'
_OLD_REACH_VARIABLE = 'ROS_LOCALHOST_ONLY'

_SHARED_MEMORY = Path('/dev/shm')
# Five processes (camera, perception, viewer, recorder, one more) of 64 MiB and their overhead.
_ROOM_FOR_LARGE = 360 * 2**20


def config_file(name: str) -> Path:
    """
    Return a file of `config/`, from the source tree or the installed share folder.

    An installed package lies below the prefix whose `share/mtl_perception` holds the files
    (colcon, pip and Debian alike), so walking up from here finds them without ament.

    Raises
    ------
    RosError
        If no folder above this module holds the file.

    """
    for folder in Path(__file__).resolve().parents:
        for candidate in (
            folder / 'share' / 'mtl_perception' / 'config' / name,
            folder / 'config' / name,
        ):
            # A foreign config/ may lie above an installed package: only ours has package.xml.
            if candidate.is_file() and (candidate.parents[1] / 'package.xml').is_file():
                return candidate
    msg = (
        f'config/{name} was not found above {Path(__file__).parent}: install the package with '
        'its data files (colcon build, or pip install)'
    )
    raise RosError(msg)


def stay_on_this_machine(environment: MutableMapping[str, str] = os.environ) -> None:
    """
    Keep the processes of `environment` from being heard by other machines, unless it says how far.

    Call it before `rclpy.init`. Humble and Iron know another variable than their successors.
    """
    if environment.get(_OLD_REACH_VARIABLE) or environment.get(_REACH_VARIABLE):
        return
    if environment.get('ROS_DISTRO') in _OLD_DISTRIBUTIONS:
        environment[_OLD_REACH_VARIABLE] = '1'
    else:
        environment[_REACH_VARIABLE] = 'LOCALHOST'


def choose_profile() -> Path:
    """
    Return the shipped profile that this machine's shared memory has room for.

    Where not even the small segments fit, Fast DDS says so itself and uses UDP alone.
    """
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:
        free = 0
    return config_file(LARGE_MESSAGES if free >= _ROOM_FOR_LARGE else SMALL_SHARED_MEMORY)


def profile_variable(environment: Mapping[str, str] = os.environ) -> str:
    """Return the name under which this ROS distribution's Fast DDS looks for its profile."""
    is_old = environment.get('ROS_DISTRO') in _OLD_DISTRIBUTIONS
    return OLD_PROFILE_VARIABLE if is_old else PROFILE_VARIABLE


def use_large_message_profile(
    environment: MutableMapping[str, str] = os.environ,
) -> Path | None:
    """
    Make the processes of `environment` load the shipped Fast DDS profile.

    Call it before `rclpy.init`. A profile that is set already is the user's choice and stays;
    the result is then None. Other DDS implementations do not read the variable.
    """
    if environment.get(PROFILE_VARIABLE) or environment.get(OLD_PROFILE_VARIABLE):
        return None
    profile = choose_profile()
    environment[profile_variable(environment)] = str(profile)
    return profile
