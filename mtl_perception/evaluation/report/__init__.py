# SPDX-License-Identifier: Apache-2.0
"""report.html: everything a replay found on one page that needs no network."""
