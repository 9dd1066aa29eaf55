# SPDX-License-Identifier: Apache-2.0
"""Rendered rooms: a ray-cast indoor world, its camera and its labels."""
