"""Long work goes on in turn, one step in each turn of the loop."""

import asyncio

from engine.wires import turns

from ai_mux.proxy.in_turn import InTurn


async def test_one_step_is_done_in_a_turn_of_the_loop_whoever_has_more_to_do():
    in_turn, done = InTurn(asyncio.get_running_loop()), []

    def work(name: str, left: int) -> None:
        done.append(name)
        if left > 1:
            in_turn.add(lambda: work(name, left - 1))

    for name, steps in (("a", 3), ("b", 1), ("c", 2)):
        in_turn.add(lambda name=name, steps=steps: work(name, steps))
    assert done == []
    for number in range(1, 8):
        await asyncio.sleep(0)
        assert len(done) == min(number, 6)
    assert done == ["a", "b", "c", "a", "c", "a"]
    in_turn.add(lambda: work("d", 1))
    await turns(2)
    assert done[-1] == "d"


async def test_a_step_that_fails_does_not_keep_the_others():
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: told.append(type(context["exception"])))
    in_turn, done = InTurn(loop), []
    in_turn.add([].pop)
    in_turn.add(lambda: done.append("second"))
    await turns(4)
    assert (told, done) == ([IndexError], ["second"])
