# SPDX-License-Identifier: Apache-2.0
"""ROS 2 nodes, their parameters, topics and launchers: the only room that imports rclpy."""
