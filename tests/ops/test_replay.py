"""Programs of operators: what they compute, and that a wrong one is refused."""

import pytest
import torch

from linger import ops
from linger.ops import free_program, make_program, operator_number, run_program

TENSOR, INT = 0, 3


@pytest.fixture
def program():
    """Keeps programs for one test."""
    made = []

    def keep(constants, words):
        made.append(make_program(constants, words))
        return made[-1]

    yield keep
    for number in made:
        free_program(number)


def addition(slots=3, results=(2,), second=1):
    """x + constant, both shifted by 1, in 8 bits."""
    add = [operator_number("add_codes"), 1, 2, 5, TENSOR, 0, TENSOR, second, INT, 1, INT, 1, INT, 8, 0]
    return [slots, len(results), *results, *add]


def test_an_operator_with_a_constant(program):
    x, y = (torch.randint(-128, 127, (3, 40), dtype=torch.int8) for _ in range(2))
    number = program([y], addition())
    for t in (x, x[:, ::2].contiguous().repeat(1, 2)):
        (got,) = run_program([t], number)
        assert torch.equal(got, ops.add_codes(t, y, 1, 1, 8))


def test_there_is_no_such_operator():
    assert operator_number("add_codes") >= 0 and operator_number("nothing") == -1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the program ends inside a step"),
        (addition(slots=2), "no slot 2"),
        (addition(second=9), "9 is not in"),
        (addition(second=2), "a slot is read before it is written"),
        (addition(results=(7,)), "a result is missing"),
        (addition()[:-3], "the program ends inside a step"),
        ([3, 0, 99999, 1, 2, 0, 0], "there is no operator 99999"),
        ([3, 0, -99, 1, 2, 0, 0], "there is no operator"),
        ([1, 0], "too many inputs"),
    ],
)
def test_wrong_programs_are_refused(program, words, said):
    number = program([torch.zeros(3, 40, dtype=torch.int8)], words)
    with pytest.raises(RuntimeError, match=said):
        run_program([torch.zeros(3, 40, dtype=torch.int8)], number)


def test_programs_that_are_gone():
    number = make_program([], [1, 1, 0])
    x = torch.zeros(2)
    assert run_program([x], number)[0].data_ptr() == x.data_ptr()
    free_program(number)
    with pytest.raises(RuntimeError, match=f"there is no program {number}"):
        run_program([x], number)
    with pytest.raises(NotImplementedError, match="cannot be traced"):
        ops.fake_kernel("linger::replay_run")([x], number)
