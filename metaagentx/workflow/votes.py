"""How the members of an ensemble settle on one answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def tally(
    answers: Sequence[str | None], weights: Sequence[float] | None, normalise: Callable[[str], str]
) -> dict[str, float]:
    """The weight behind each normalised answer, in the order of first mention. None does not vote."""
    votes: dict[str, float] = {}
    for index, answer in enumerate(answers):
        if answer is not None:
            vote = normalise(answer)
            votes[vote] = votes.get(vote, 0.0) + (1.0 if weights is None else weights[index])
    return votes


def is_split(votes: dict[str, float]) -> bool:
    """Anything but unanimity among those that vote is a split."""
    return len(votes) > 1


def winner(
    answers: Sequence[str | None], weights: Sequence[float] | None, normalise: Callable[[str], str]
) -> int | None:
    """The index of the first member that holds the heaviest answer; ties go to the first mentioned. None: no votes."""
    votes = tally(answers, weights, normalise)
    if not votes:
        return None
    heaviest = max(votes, key=lambda vote: votes[vote])
    return next(i for i, answer in enumerate(answers) if answer is not None and normalise(answer) == heaviest)
