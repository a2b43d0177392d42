import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from metaagentx.tasks import equivalence
from metaagentx.tasks.equivalence import Equivalence

pytest.importorskip("math_verify")


@pytest.fixture(scope="module")
def judge():
    return Equivalence(seconds=5.0)


@pytest.mark.parametrize(
    ("wanted", "given", "equal"),
    [
        (r"\frac{1}{3}", "1/3", True),
        ("2*x + 2", "2(x+1)", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        ("{1, 2}", "{2, 1}", True),
        ("1/3", "0.333", False),
        ("7", "8", False),
        ("7", "seven sevenths }{", False),
        ("7", "", False),
    ],
)
def test_equal_answers_are_equal_however_they_are_spelled(judge, wanted, given, equal):
    assert judge.holds(wanted, given) is equal


def test_it_works_outside_the_main_thread_and_is_asked_once(judge, monkeypatch):
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda n: judge.holds("x+1", "1+x"), range(8)))
    monkeypatch.setattr(judge, "_worker", None)
    monkeypatch.setattr(judge, "_start", lambda: pytest.fail("asked again"))
    assert judge.holds("x+1", "1+x")


def test_what_takes_too_long_is_killed_and_the_next_is_answered(judge):
    assert judge.holds("5", "5")
    judge._seconds, worker = 0.3, judge._worker
    os.kill(worker.pid, signal.SIGSTOP)
    start = time.monotonic()
    assert not judge.holds("1", "3 - 2")
    assert time.monotonic() - start < 3
    assert worker.poll() is not None
    judge._seconds = 5.0
    assert judge.holds("3", "6/2")


def test_costly_towers_are_not_even_tried(monkeypatch):
    judge = Equivalence()
    monkeypatch.setattr(judge, "_start", lambda: pytest.fail("tried"))
    for given in ("9^9^9^9", "9^{9^{9}}", "100000!", "9!!", "2^{100000}", "1" * 300):
        assert not judge.holds("1", given)


def test_without_math_verify_there_is_an_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(equivalence.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'metaagentx\[math\]'"):
        Equivalence()
