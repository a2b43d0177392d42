"""Exact arithmetic on hostile text: parsed by `ast`, never executed, every size bounded before it is computed."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from metaagentx.tools.tool import Tool, ToolError

LONGEST = 500  # characters of an expression
DEEPEST = 100  # operations within each other
LARGEST = 4096  # bits of a numerator or denominator
DIGITS = 50  # significant digits of a result that is no short exact decimal

# Numbers, words and signs: the parser is shown nothing that it would warn of. Possessive, hence linear.
_NUMBER = r"(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][+-]?+[0-9]++)?+(?![\w.])"
_TOKENS = re.compile(rf"(?:[ +\-*/%(),]|{_NUMBER}|[A-Za-z_][A-Za-z_0-9]*+)*+")

_BINARY: Mapping[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
}
_FUNCTIONS = ("gcd", "lcm", "abs", "min", "max", "sum", "sqrt", "floor", "ceil", "round", "factorial", "comb")
OPERATIONS = frozenset({*_BINARY.values(), *_FUNCTIONS})


def make_calculator(allowed: frozenset[str] = OPERATIONS) -> Tool:
    """The tool `calculator(expression)`, restricted to the operations in `allowed` (a sign before a number is none).

    Raises:
      ValueError: `allowed` names an operation that does not exist.
    """
    unknown = sorted(allowed - OPERATIONS)
    if unknown:
        raise ValueError(f"calculator operations must be among {', '.join(sorted(OPERATIONS))}, not {unknown[0]!r}")

    def calculator(expression: str) -> str:
        """Exact value of an arithmetic expression.

        Args:
          expression: for example gcd(26, 38)
        """
        return calculate(expression, allowed=allowed)

    tool = Tool.of(calculator)
    operations = ", ".join(_ordered(allowed))
    return dataclasses.replace(tool, description=f"{tool.description} Operations: {operations}.", instant=True)


def calculate(expression: str, *, allowed: frozenset[str] = OPERATIONS) -> str:
    """The value of `expression`: an integer, an exact decimal, or a fraction `p/q`; irrational roots are rounded.

    Raises:
      ToolError: what is wrong with the expression, for any text whatever.
    """
    if len(expression) > LONGEST:
        raise ToolError(f"an expression may have at most {LONGEST} characters, not {len(expression)}")
    source = " ".join(expression.split()).replace("^", "**").replace("×", "*").replace("·", "*").replace("÷", "/")
    if not _TOKENS.fullmatch(source):
        raise ToolError(f"not an arithmetic expression: {expression[:80]!r}")
    try:
        tree = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolError(f"not an arithmetic expression: {expression[:80]!r}") from None
    return _show(_value(tree, source, allowed, DEEPEST))


def _value(node: ast.expr, source: str, allowed: frozenset[str], depth: int) -> Fraction:
    if depth == 0:
        raise ToolError(f"an expression may be nested at most {DEEPEST} deep")
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(_literal(node, source, number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, source, allowed, depth - 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, source, allowed, depth - 1)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            sign = _BINARY[type(op)]
            _permit(sign, allowed)
            a, b = (_value(side, source, allowed, depth - 1) for side in (left, right))
            return _bounded(_binary(sign, a, b))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _CALLS:
            _permit(name, allowed)
            values = [_value(argument, source, allowed, depth - 1) for argument in arguments]
            return _bounded(_call(name, values))
    written = (ast.get_source_segment(source, node) or source)[:80]
    raise ToolError(f"{written!r} is not arithmetic; there is {', '.join(_ordered(allowed))}")


def _literal(node: ast.Constant, source: str, number: int | float) -> Fraction:
    """A number as it is written: 0.1 is one tenth, not the float next to it."""
    if isinstance(number, int):
        return Fraction(number)
    if not math.isfinite(number) or (number != 0 and not 1e-300 < abs(number) < 1e300):
        raise ToolError("a number is too large or too small")
    return Fraction(ast.get_source_segment(source, node) or repr(number))


def _permit(operation: str, allowed: frozenset[str]) -> None:
    if operation not in allowed:
        raise ToolError(f"the operation {operation!r} is not available; there is {', '.join(_ordered(allowed))}")


def _ordered(allowed: frozenset[str]) -> list[str]:
    return [operation for operation in (*_BINARY.values(), *_FUNCTIONS) if operation in allowed]


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > LARGEST:
        raise ToolError("a number is too large")
    return value


def _binary(sign: str, a: Fraction, b: Fraction) -> Fraction:
    if sign in ("/", "//", "%") and b == 0:
        raise ToolError("division by zero")
    match sign:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return a / b
        case "//":
            return Fraction(a // b)
        case "%":
            return a % b
    return _power(a, b)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent == Fraction(1, 2):
        return _sqrt(base)
    if exponent.denominator != 1:
        raise ToolError("an exponent must be an integer or 1/2")
    if base == 0 and exponent < 0:
        raise ToolError("division by zero")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits > 1 and (bits - 1) * abs(exponent) > LARGEST:
        raise ToolError("a power is too large")
    if bits <= 1:  # 0, 1 and -1 have powers of any size
        return base ** (2 if exponent % 2 == 0 and exponent else int(exponent != 0))
    return Fraction(base ** int(exponent))


def _sqrt(value: Fraction) -> Fraction:
    """The root of a square exactly, any other rounded to about 30 decimals."""
    if value < 0:
        raise ToolError("the root of a negative number is not real")
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root == value:
        return root
    scale = 10**30
    return Fraction(math.isqrt(value.numerator * value.denominator * scale**2), value.denominator * scale)


def _whole(name: str, values: list[Fraction], largest: int | None = None) -> list[int]:
    for value in values:
        if value.denominator != 1:
            raise ToolError(f"{name} takes integers, not {_show(value)}")
        if largest is not None and not 0 <= value <= largest:
            raise ToolError(f"{name} takes integers from 0 to {largest}, not {_show(value)[:80]}")
    return [int(value) for value in values]


_CALLS: Mapping[str, tuple[int, int, Callable[[list[Fraction]], Fraction | int]]] = {
    # name: (fewest arguments, most arguments, function)
    "gcd": (1, 100, lambda v: math.gcd(*_whole("gcd", v))),
    "lcm": (1, 100, lambda v: functools.reduce(lambda a, b: int(_bounded(Fraction(math.lcm(a, b)))), _whole("lcm", v))),
    "abs": (1, 1, lambda v: abs(v[0])),
    "min": (1, 100, min),
    "max": (1, 100, max),
    "sum": (1, 100, lambda v: sum(v, Fraction(0))),
    "sqrt": (1, 1, lambda v: _sqrt(v[0])),
    "floor": (1, 1, lambda v: math.floor(v[0])),
    "ceil": (1, 1, lambda v: math.ceil(v[0])),
    "round": (1, 1, lambda v: round(v[0])),
    "factorial": (1, 1, lambda v: math.factorial(_whole("factorial", v, 400)[0])),
    "comb": (2, 2, lambda v: math.comb(*_whole("comb", v, 400))),
}


def _call(name: str, values: list[Fraction]) -> Fraction:
    fewest, most, function = _CALLS[name]
    if not fewest <= len(values) <= most:
        count = str(fewest) if fewest == most else f"{fewest} to {most}"
        raise ToolError(f"{name} takes {count} arguments, not {len(values)}")
    return Fraction(function(values))


def _show(value: Fraction) -> str:
    """An integer or exact decimal where there is a short one, a short fraction, or else 15 decimals."""
    top, bottom = value.numerator, value.denominator
    if bottom == 1:
        return str(top)
    rest = bottom
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    places = bottom.bit_length()
    if rest == 1 and places <= DIGITS:
        return _decimal(value, places)
    if rest != 1 and len(str(top)) + len(str(bottom)) <= 24:
        return f"{top}/{bottom}"
    return _decimal(value, 15)


def _decimal(value: Fraction, places: int) -> str:
    """`value` rounded to `places` decimals, without trailing zeros."""
    scaled = round(abs(value) * 10**places)
    whole, part = divmod(scaled, 10**places)
    sign = "-" if value < 0 and scaled else ""
    return f"{sign}{whole}.{part:0{places}d}".rstrip("0").rstrip(".")
