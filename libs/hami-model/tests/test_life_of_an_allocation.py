"""The life of an allocation is its table, and nothing beside it."""

import pytest
from hami_model.allocation import LEADS_TO, TRANSITIONS, State, Step, advance, is_bound, is_committed
from hami_model.errors import InvariantError
from hypothesis import given
from hypothesis import strategies as st

EVERY_PAIR = [(state, step) for state in TRANSITIONS for step in Step]


@pytest.mark.parametrize(("state", "step"), EVERY_PAIR)
def test_what_is_in_the_table_happens_and_nothing_else(state: State | None, step: Step) -> None:
    """Every pair of state and step either stands in the table or is our own fault."""
    if step in TRANSITIONS[state]:
        assert TRANSITIONS[state][step] == advance(state, step)
    else:
        with pytest.raises(InvariantError, match=str(step)):
            advance(state, step)


def test_each_step_leads_to_one_state() -> None:
    """A step means the same wherever it stands in the table, so a repeated event can be recognised by its outcome."""
    outcomes = {step: {row[step] for row in TRANSITIONS.values() if step in row} for step in Step}

    assert {step: {state} for step, state in LEADS_TO.items()} == outcomes


@given(st.lists(st.sampled_from(Step), max_size=12))
def test_a_walk_through_the_table_never_frees_what_may_be_bound_but_by_release(steps: list[Step]) -> None:
    """Whatever happens in whatever order, an allocation once committed stays so until it is released."""
    state: State | None = None
    for step in steps:
        if step not in TRANSITIONS[state]:
            continue
        before, state = state, advance(state, step)
        if before is not None and is_committed(before):
            assert is_committed(state) or state is State.RELEASED
        if before is not None and is_bound(before):
            assert is_bound(state) or state is State.RELEASED


def test_released_is_the_end() -> None:
    """Nothing happens to an allocation after its release; the pod may only be given a new one."""
    assert {} == TRANSITIONS[State.RELEASED]
