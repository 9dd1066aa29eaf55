# SPDX-License-Identifier: Apache-2.0
"""Labels from one domain, images from another: discriminators and the step that uses them."""
