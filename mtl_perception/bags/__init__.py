# SPDX-License-Identifier: Apache-2.0
"""Read rosbag2 recordings without ROS: messages, topics, and frames with their depth."""
