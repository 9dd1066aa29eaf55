# SPDX-License-Identifier: Apache-2.0
"""Small layers shared by the systems."""
