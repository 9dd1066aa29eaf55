# SPDX-License-Identifier: Apache-2.0
"""Run `python3 -m mtl_perception <command>`."""

import sys

from mtl_perception.cli import main

if __name__ == '__main__':
    sys.exit(main())
