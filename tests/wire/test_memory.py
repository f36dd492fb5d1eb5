"""What is remembered is what would be found, and never too much of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.wire.memory import Memory, up_to


class Counting:
    """Finds the length of bytes, and takes note of what it was asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, argument):
        self.asked.append(argument)
        if argument == b"bad":
            raise ValueError(argument)
        return len(argument)


@given(st.lists(st.binary(max_size=3), max_size=50))
def test_what_is_remembered_is_what_would_be_found(arguments):
    memory = Memory(len, keeps=up_to(2), most=4)
    assert [memory[argument] for argument in arguments] == [len(argument) for argument in arguments]
    assert len(memory) <= 4
    assert all(len(argument) <= 2 for argument in memory)


def test_what_was_found_is_not_looked_for_again():
    find = Counting()
    memory = Memory(find, keeps=up_to(2), most=2)
    assert [memory[b"a"], memory[b"a"], memory[b"long"], memory[b"long"]] == [1, 1, 4, 4]
    assert find.asked == [b"a", b"long", b"long"]


def test_when_it_is_full_it_begins_anew():
    find = Counting()
    memory = Memory(find, keeps=up_to(2), most=2)
    for argument in (b"a", b"b", b"c", b"c", b"a"):
        assert memory[argument] == 1
    assert find.asked == [b"a", b"b", b"c", b"a"]


def test_a_refusal_is_not_remembered():
    find = Counting()
    memory = Memory(find, keeps=up_to(9), most=2)
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            memory[b"bad"]
    assert find.asked == [b"bad", b"bad"]
    assert not memory
