# SPDX-License-Identifier: Apache-2.0
"""One RGB camera in; labels, metric depth, normals, edges and a fused cloud out."""

__version__ = '0.1.0'
