# SPDX-License-Identifier: Apache-2.0
"""From labelled frames to a bundle: recipes, augmentation and the Lightning loop."""
