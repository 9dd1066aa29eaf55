# SPDX-License-Identifier: Apache-2.0
"""Scores of finished maps in metric units, mergeable across batches and processes."""
