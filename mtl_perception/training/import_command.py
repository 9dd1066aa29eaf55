# SPDX-License-Identifier: Apache-2.0
"""`import-weights`: from a published checkpoint to a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

_EPILOG = """\
NAMES.yaml maps regular expressions, each for a whole name, to new names; null leaves out:
  'backbone\\.(.*)': 'encoder.backbone.net.\\1'
  'params\\..*': null

shipped maps, for recipes with `mode: published`: mti_net, pad_net, demt, densemtl

example:
  python3 -m mtl_perception import-weights --weights checkpoint.pth.tar \\
    --config mti_net_published.yaml --map mti_net --out bundles/published
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='python3 -m mtl_perception import-weights',
        description='Bring published weights into a bundle by their names; say what matched.',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--weights', type=Path, required=True,
        help='a safetensors file or a PyTorch checkpoint of plain tensors',
    )
    parser.add_argument(
        '--config', type=Path, required=True, help='the recipe whose network takes the weights'
    )
    parser.add_argument('--out', type=Path, required=True, help='the bundle to write')
    parser.add_argument(
        '--map', metavar='NAMES', dest='names',
        help='a YAML file that renames, the name of a shipped one, or `timm`: the weights of a '
        'timm model, for the backbone',
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the bundle is written."""
    options = _parser().parse_args(argv)

    from mtl_perception.training.failures import told_plainly
    from mtl_perception.training.import_weights import describe_match, import_weights
    from mtl_perception.training.recipe import load_recipe

    recipe = load_recipe(options.config)
    with told_plainly(options.out):
        _, matched = import_weights(options.weights, recipe, options.out, options.names)
    for line in describe_match(matched):
        print(line)
    print(f'bundle written to {options.out}')
    return 0
