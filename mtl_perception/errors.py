# SPDX-License-Identifier: Apache-2.0
"""The base of every error that this package raises on purpose."""


class MtlPerceptionError(Exception):
    """
    Something the user can mend: the message names the thing, the value and the remedy.

    Each room has one subclass. The command line prints such an error as one line and exits
    with code 1; anything else is a defect and keeps its traceback.
    """
