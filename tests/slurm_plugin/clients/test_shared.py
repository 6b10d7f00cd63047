"""Many virtual nodes, one question."""

import asyncio

import pytest

from slurm_plugin.clients.shared import Gathered
from slurm_plugin.errors import SlurmUnavailableError


class Question:
    """A question that is answered when the test says so; each answer is the question's number."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers: asyncio.Queue[Exception | None] = asyncio.Queue()

    async def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        if (error := await self.answers.get()) is not None:
            raise error
        return number


async def test_who_asks_while_a_query_is_under_way_shares_the_next_one() -> None:
    question = Question()
    gathered = Gathered(question, seconds=0, name="test")
    first = [asyncio.create_task(gathered.answer()) for _ in range(5)]
    await asyncio.sleep(0.01)
    late = [asyncio.create_task(gathered.answer()) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert question.asked == 1
    question.answers.put_nowait(None)
    question.answers.put_nowait(None)
    assert await asyncio.gather(*first) == [1] * 5
    assert await asyncio.gather(*late) == [2] * 5


async def test_an_error_is_everybodys_and_the_next_question_is_put_all_the_same() -> None:
    question = Question()
    gathered = Gathered(question, seconds=0, name="test")
    question.answers.put_nowait(SlurmUnavailableError("away"))
    question.answers.put_nowait(None)
    results = await asyncio.gather(gathered.answer(), gathered.answer(), return_exceptions=True)
    assert [type(result) for result in results] == [SlurmUnavailableError] * 2
    assert await gathered.answer() == 2


async def test_an_asker_that_is_cancelled_takes_nobody_with_it() -> None:
    question = Question()
    gathered = Gathered(question, seconds=0, name="test")
    gone, stays = (asyncio.create_task(gathered.answer()) for _ in range(2))
    await asyncio.sleep(0.01)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    question.answers.put_nowait(None)
    assert await stays == 1


async def test_two_questions_are_apart() -> None:
    question = Question()
    gathered = Gathered(question, seconds=0.2, name="test")
    for _ in range(2):
        question.answers.put_nowait(None)
    clock = asyncio.get_running_loop().time
    begun = clock()
    await gathered.answer()
    await gathered.answer()
    assert clock() - begun >= 0.19
