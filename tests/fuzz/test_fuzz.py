"""A short, fixed part of what `make fuzz` does."""

import pytest
from fuzz.answers import Answers
from fuzz.requests import Requests


@pytest.mark.parametrize("first", range(0, 2000, 500))
def test_mutated_answers_are_decoded_or_refused(first):
    answers = Answers()
    try:
        for number in range(first, first + 500):
            answers.run(number)
    finally:
        answers.close()

    assert answers.counts.total() == 500
    assert answers.counts["page: decoded"] > 100


async def test_mutated_requests_never_break_the_server():
    requests = Requests()
    await requests.run(range(60))

    assert requests.counts.total() == 60
    assert requests.counts["200"] > 0
    assert requests.counts["400"] > 0
