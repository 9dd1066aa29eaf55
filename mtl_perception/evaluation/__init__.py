# SPDX-License-Identifier: Apache-2.0
"""Run a model over a rosbag, score it by what the bag holds, and time it."""
