# SPDX-License-Identifier: Apache-2.0
"""Installs the package, for colcon (ament_python) and for pip alike."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = 'mtl_perception'
COMMANDS = ('demo', 'live', 'camera', 'rooms', 'train', 'import-weights', 'evaluate', 'study',
            'compile', 'replay', 'benchmark', 'models')

# What a robot gets from rosdep (package.xml) comes from PyPI where there is no ROS. Upper
# bounds name what has been tested; docs/compatibility.md tells what differs between them.
CORE = [
    'numpy>=1.21,<3',
    'opencv-python-headless>=4.5,<5.1',
    'pyyaml>=5.4',
    'rich>=10',
    'safetensors>=0.4',
]
EXTRAS = {
    'ros': [
        *CORE,
        'ros-rclpy[fastrtps]>=7.1',
        'ros-ament-index-python',
        'ros-diagnostic-msgs',
        'ros-geometry-msgs',
        'ros-lifecycle-msgs',
        'ros-nav-msgs',
        'ros-rosgraph-msgs',
        'ros-sensor-msgs',
        'ros-std-msgs',
        'ros-std-srvs',
        'ros-visualization-msgs',
        'rosbags>=0.11,<0.12',
        'rosbags-image>=0.10,<0.11',
    ],
    'cpu': [*CORE, 'onnxruntime>=1.16'],
    'openvino': [*CORE, 'openvino>=2024.0'],
    'rooms': [*CORE, 'embreex>=2.17', 'trimesh>=4'],
    'train': [
        *CORE,
        'lightning>=2.4,<3',
        'matplotlib>=3.5',
        'onnx>=1.16',
        'onnxscript>=0.5',
        'pillow>=9',
        'rosbags>=0.11,<0.12',
        'rosbags-image>=0.10,<0.11',
        'scipy>=1.10',
        'segmentation-models-pytorch==0.6.*',
        'timm==1.0.31',
        'torch>=2.8,<2.15',
        'torchmetrics>=1.4',
        'torchvision>=0.23,<0.30',
    ],
    'tensorboard': ['tensorboard>=2.12'],
    'tensorrt': ['torch-tensorrt>=2.8'],
    # The ONNX builder and runtime; torch-tensorrt-rtx brings both and torch.
    'tensorrt-rtx': [*CORE, 'onnx>=1.16', 'torch-tensorrt-rtx==2.14.0'],
    'map': [*CORE, 'open3d>=0.19'],
    'viewer': ['rerun-sdk==0.41.*'],
    'test': [
        'hypothesis>=6.100',
        'import-linter>=2',
        'mypy>=1.10',
        'psutil>=5.9',
        'pytest>=8',
        'pytest-timeout>=2.3',
        'ruff>=0.6',
        'tensorboard>=2.12',
        'types-PyYAML',
    ],
}

setup(
    name=PACKAGE,
    version='0.1.0',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={
        PACKAGE: [
            'py.typed', 'labels/*.yaml', 'labels/maps/*.yaml', 'bundles/*/*',
            'evaluation/report/page.*',
        ],
    },
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        (f'share/{PACKAGE}/launch', sorted(glob('launch/*.launch.py'))),
        (f'share/{PACKAGE}/config', sorted(
            file for file in glob('config/*') if '.' in file.rsplit('/', 1)[-1]
        )),
        (f'share/{PACKAGE}/config/train', sorted(glob('config/train/*.yaml'))),
        (f'share/{PACKAGE}/config/name_maps', sorted(glob('config/name_maps/*.yaml'))),
        (f'share/{PACKAGE}/config/study', sorted(glob('config/study/*.yaml'))),
    ],
    install_requires=['setuptools'],
    extras_require=EXTRAS,
    python_requires='>=3.10',
    zip_safe=True,
    maintainer='mtl_perception maintainers',
    maintainer_email='maintainers@mtl-perception.invalid',
    description='One RGB camera in; labels, metric depth, normals, edges and a fused cloud out',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            f'{name} = {PACKAGE}.cli:{name.replace("-", "_")}' for name in COMMANDS
        ],
    },
)
