# SPDX-License-Identifier: Apache-2.0
"""Geometry of finished maps: the fused cloud and normals from measured depth."""
