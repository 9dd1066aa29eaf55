# SPDX-License-Identifier: Apache-2.0
"""Labelled frames on disk; every dataset yields `Sample`."""
