# SPDX-License-Identifier: Apache-2.0
"""The demo's web viewer: rerun's own page, fed with the topics as they come."""

from __future__ import annotations

import socket
from typing import Any

from mtl_perception.ros.errors import RosError
from mtl_perception.ros.observer import CAMERA_IMAGE, message_pixels
import numpy as np
from sensor_msgs.msg import PointCloud2

# Shown as pictures; the machine maps behind them (32FC3 normals, 32FC1 depth) have these twins.
_PICTURES = {
    CAMERA_IMAGE: 'camera',
    'semantic_color/image_raw': 'semantic',
    'normals_color/image_raw': 'normals',
    'edges/image_raw': 'edges',
}
_DEPTH = 'depth/image_rect'
_POINTS = 'points'
# The browser draws a third of the points as fast as all; a remote one needs the bandwidth.
_POINT_STRIDE = 2
_REMEDY = 'end what uses it (another demo?), or run without a viewer: --headless'


class Viewer:
    """
    Serve a web page with the images and the cloud; `address` is what to open.

    Raises
    ------
    RosError
        If a port is taken or the package rerun is missing.

    """

    def __init__(self, *, web_port: int = 9090, data_port: int = 9876) -> None:
        try:
            import rerun
            import rerun.blueprint as blueprint
        except ModuleNotFoundError as error:
            msg = "the viewer needs rerun; install it with: pip install 'rerun-sdk==0.41.*'"
            raise RosError(msg) from error
        self._rerun = rerun
        views = [
            blueprint.Spatial2DView(origin=f'/{name}', name=name)
            for name in (*_PICTURES.values(), 'depth')
        ]
        layout = blueprint.Blueprint(
            blueprint.Horizontal(
                blueprint.Grid(*views),
                blueprint.Spatial3DView(origin='/cloud', name='fused cloud'),
            ),
            collapse_panels=True,
        )
        for port in (web_port, data_port):
            _require_free(port)
        rerun.init('mtl_perception')
        try:
            # A live view shows what is now: a viewer that connects late is not sent the past.
            source = rerun.serve_grpc(
                grpc_port=data_port,
                default_blueprint=layout,
                server_memory_limit='64MB',
                newest_first=True,
            )
            rerun.serve_web_viewer(web_port=web_port, open_browser=False, connect_to=source)
        except Exception as error:
            ports = f'ports {web_port} and {data_port}'
            msg = f'the viewer cannot serve on {ports}: {error}; {_REMEDY}'
            raise RosError(msg) from error
        rerun.log('/cloud', rerun.ViewCoordinates.RDF, static=True)
        # rerun's page reads the address of its data from the query.
        self.address = f'http://127.0.0.1:{web_port}/?url={source.replace("+", "%2B")}'

    def show(self, topic: str, message: Any) -> None:
        """Log one message; topics without a view are ignored."""
        rerun = self._rerun
        if topic not in _PICTURES and topic not in (_DEPTH, _POINTS):
            return
        stamp = message.header.stamp
        rerun.set_time('stamp', timestamp=stamp.sec + stamp.nanosec * 1e-9)
        if isinstance(message, PointCloud2):
            points = message_pixels(message)[::_POINT_STRIDE, ::_POINT_STRIDE].reshape(-1, 8)
            points = points[np.isfinite(points[:, 0])]
            packed = points[:, 3].copy().view(np.uint32)
            colours = np.stack(
                ((packed >> 16) & 255, (packed >> 8) & 255, packed & 255), axis=-1
            ).astype(np.uint8)
            rerun.log('/cloud/points', rerun.Points3D(points[:, :3], colors=colours, radii=0.008))
            return
        pixels = message_pixels(message)
        if topic == _DEPTH:
            rerun.log('/depth', rerun.DepthImage(pixels, meter=1.0, depth_range=(0.3, 8.0)))
        else:
            rerun.log(f'/{_PICTURES[topic]}', rerun.Image(pixels))


def _require_free(port: int) -> None:
    """Raise RosError if the port is taken; of its data port rerun only logs that it is."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('0.0.0.0', port))
        except OSError as error:
            msg = f'the viewer cannot serve on port {port}: {error.strerror}; {_REMEDY}'
            raise RosError(msg) from error
