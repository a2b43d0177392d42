"""The families that a small language model can partly learn: arithmetic, words and small programs."""

from __future__ import annotations

from metaagentx.tasks.functions import FUNCTIONS
from metaagentx.tasks.gym import Family, GymOptions


def _sum(kind: str, terms: int) -> Family:
    sizes = (("min_terms", terms), ("max_terms", terms), ("min_digits", 1), ("max_digits", 2))
    return Family(kind, "chain_sum", sizes, "mathematics")


LANGUAGE_FAMILIES = (
    _sum("sum2", 2),
    _sum("sum4", 4),
    Family("product", "products", (("min_digits", 1), ("max_digits", 2)), "mathematics"),
    Family("divisor", "gcd", (("min_value", 2), ("max_value", 60)), "mathematics"),
    Family("divisor", "lcm", (("min_value", 2), ("max_value", 60)), "mathematics"),
    Family(
        "equation",
        "simple_equations",
        (("min_terms", 2), ("max_terms", 2), ("min_value", 1), ("max_value", 12)),
        "mathematics",
    ),
    Family("spell", "spell_backward", (("min_word_len", 3), ("max_word_len", 6)), "text", lowercase=True),
    Family("letters", "letter_counting", (("min_words", 2), ("max_words", 4)), "mathematics"),
    Family("reverse", "word_sequence_reversal", (("min_words", 3), ("max_words", 5)), "text", lowercase=True),
    Family("code", FUNCTIONS, (("min_steps", 1), ("max_steps", 3)), "code"),
)
LANGUAGE_GYM = GymOptions(families=LANGUAGE_FAMILIES, train=1500, validation=50, test=100)
