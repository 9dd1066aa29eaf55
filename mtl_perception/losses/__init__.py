# SPDX-License-Identifier: Apache-2.0
"""Losses on raw maps, one file per task kind, and their weighted sum."""
