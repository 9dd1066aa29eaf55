# SPDX-License-Identifier: Apache-2.0
"""Sizes, numbers and lists as commands read them, and the progress bar they show."""

from __future__ import annotations

from argparse import ArgumentTypeError
import io

from hypothesis import given
from hypothesis import strategies as st
from mtl_perception.command_line import listed, one_of, positive, progress_bar, size
import pytest
from rich.console import Console


@given(st.integers(1, 99999), st.integers(1, 99999))
def test_a_size_is_read_as_it_was_written(first: int, second: int) -> None:
    assert size(f'{first}x{second}') == (first, second)


@pytest.mark.parametrize(
    ('parse', 'text', 'message'),
    [
        *((size, text, 'not a size such as 640x480') for text in
          ('640', '0x480', '640x0', '-1x3', '640x480x3', 'x', '', '٣x٣', '6.0x4', ' 6x4')),
        *((positive, text, 'not a whole number of at least 1') for text in
          ('0', '-1', '', '1.5', 'one', '²', '٣')),
        (one_of(['a', 'b']), 'c', "'c' is not one of a, b"),
        (listed(positive), '1,,2', "'' is not a whole number"),
        (listed(size), '1x2;3x4', "'1x2;3x4' is not a size"),
    ],
)  # fmt: skip
def test_what_is_something_else_is_refused_by_name(parse, text: str, message: str) -> None:
    with pytest.raises(ArgumentTypeError, match=message):
        parse(text)


def test_lists_are_read_entry_by_entry() -> None:
    assert listed(positive)('1,20,3') == [1, 20, 3]
    assert listed(size)('240x320,480x640') == [(240, 320), (480, 640)]
    assert listed(one_of(['a', 'b']))('b,a,b') == ['b', 'a', 'b']


def test_the_bar_says_what_how_many_and_the_field() -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=120, force_terminal=True, color_system=None)
    with progress_bar('loss', console=console) as bar:
        task = bar.add_task('training', total=8, loss='loss 0.5')
        bar.update(task, completed=3)
        bar.refresh()
    assert 'training' in stream.getvalue()
    assert '3/8' in stream.getvalue()
    assert 'left' in stream.getvalue()
    assert 'loss 0.5' in stream.getvalue()


def test_a_bar_that_would_go_leaves_nothing_in_a_file() -> None:
    stream = io.StringIO()
    with progress_bar(console=Console(file=stream), transient=True) as bar:
        assert list(bar.track([1, 2, 3], description='counting')) == [1, 2, 3]
    assert stream.getvalue() == ''
