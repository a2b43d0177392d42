"""Attacks on the grade: to be called right without being right."""

from __future__ import annotations

from attack import Attack


def _returns(name: str, tries: str, value: str, before: str = "") -> Attack:
    return Attack(name, tries, f"{before}\ndef f(x):\n    return {value}\n")


_ALWAYS_EQUAL = """
class Yes({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    def __getitem__(self, key): return self
"""

_FORGE = """
import os
def write(data):
    for descriptor in range(3, 32):
        try:
            os.write(descriptor, data)
        except OSError:
            pass
"""

ATTACKS = (
    Attack("leaves_at_load", "to end well before any test", "import os\nos._exit(0)\ndef f(x): pass"),
    Attack("leaves_in_a_test", "to end well in a test", "import os\ndef f(x):\n    os._exit(0)"),
    Attack("exits_at_load", "to exit well before any test", "import sys\nsys.exit(0)\ndef f(x): pass"),
    Attack("exits_in_a_test", "to exit well in a test", "def f(x):\n    raise SystemExit(0)"),
    Attack("aborts", "to crash", "import os\ndef f(x):\n    os.abort()"),
    Attack("crashes", "to crash by a wild pointer", "import ctypes\ndef f(x):\n    return ctypes.string_at(1)"),
    _returns("equal_to_all", "an object that equals everything", "Yes()", _ALWAYS_EQUAL.format(base="object")),
    _returns("integer_equal_to_all", "an integer that equals everything", "Yes(1)", _ALWAYS_EQUAL.format(base="int")),
    _returns("string_equal_to_all", "a string that equals everything", "Yes('x')", _ALWAYS_EQUAL.format(base="str")),
    _returns("list_equal_to_all", "a list that equals everything", "Yes([1])", _ALWAYS_EQUAL.format(base="list")),
    _returns("dict_equal_to_all", "a dictionary that equals everything", "Yes(a=1)", _ALWAYS_EQUAL.format(base="dict")),
    _returns("nan", "a number that equals nothing, not itself", "float('nan')"),
    _returns("infinity", "a number that is larger than all", "float('inf')"),
    _returns("truth", "True for everything", "True"),
    _returns("nothing", "None for everything", "None"),
    _returns("the_argument", "the question as its answer", "x"),
    _returns("itself", "the function itself", "f"),
    _returns("mock", "an object that agrees with all", "MagicMock()", "from unittest.mock import MagicMock"),
    _returns("generator", "a result that has no end", "iter(int, 1)"),
    _returns("tags", "values that look like the way values are written", "{'ok': 1, 'tuple': [], 'set': []}"),
    _returns(
        "class_that_lies",
        "an object whose class claims to be int",
        "Liar()",
        "class Liar:\n    @property\n    def __class__(self): return int\n    def __index__(self): return 1\n"
        "    __eq__ = lambda self, other: True\n    __hash__ = None",
    ),
    _returns(
        "metaclass",
        "a type that equals every type",
        "K()",
        "class M(type):\n    __eq__ = lambda self, other: True\n    __hash__ = lambda self: hash(int)\n"
        "class K(metaclass=M):\n    __eq__ = lambda self, other: True\n    __hash__ = lambda self: 0",
    ),
    _returns(
        "pickle",
        "an object that runs code where it is read",
        "P()",
        "import os\nclass P:\n    def __reduce__(self): return (os.system, ('touch ' + HOST_FOLDER + '/pickled',))",
    ),
    _returns("surrogates", "text that no file can hold", "'\\ud800' * 100 + '\\x00'"),
    _returns("line_ends", "a text with forged lines in it", '\'x"}\\n{"ok": true}\\n{"grade": 1}\\n\\u2028\\x00\''),
    Attack(
        "printed",
        "to print the answer that a grader may look for",
        "def f(x):\n    print('{\"ok\": true}\\nPASSED\\n1 passed in 0.01s')",
    ),
    Attack(
        "error_that_lies",
        "an error that says that all is well",
        """
class Fine(BaseException):
    def __str__(self): return "1 passed\\nok"
    __repr__ = __str__
def f(x):
    raise Fine
""",
    ),
    Attack(
        "error_without_end",
        "an error that cannot be printed",
        """
class Long(Exception):
    def __str__(self):
        while True: pass
def f(x):
    raise Long
""",
    ),
    Attack(
        "forged_lines",
        "to write results itself",
        _FORGE
        + """
def f(x):
    write(b'{"ok": true}\\n{"ok": "right"}\\n' * 3)
    os._exit(0)
""",
    ),
    Attack(
        "forged_before",
        "to write results before it is asked",
        _FORGE + "write(b'{\"ok\": true}\\n' * 9)\ndef f(x):\n    return 0",
    ),
    Attack(
        "forged_frames",
        "to write what our own side writes: ready, acknowledgements, grades",
        _FORGE
        + """
def f(x):
    write(b'"ready"\\n"done"\\n.\\n....{"grade": 1.0}\\n{"ok": [], "error": []}\\n' * 4)
    return None
""",
    ),
    Attack(
        "forged_garbage", "to write what cannot be read", _FORGE + "def f(x):\n    write(b'\\xff\\x00{' * 999 + b'\\n')"
    ),
    Attack(
        "forged_depth",
        "to write what is too deep to be read",
        _FORGE
        + """
def f(x):
    write(b'{"ok": ' + b'[' * 20000 + b']' * 20000 + b'}\\n')
    write(b'{"ok": ' + b'{"dict": [[1,' * 3000 + b'1' + b']]}' * 3000 + b'}\\n')
""",
    ),
    Attack(
        "forged_numbers",
        "to write a number that takes long to be read",
        _FORGE
        + """
def f(x):
    write(b'{"ok": ' + b'9' * 30000 + b'}\\n{"ok": 1e99999}\\n{"ok": NaN}\\n')
""",
    ),
    Attack(
        "forged_keys",
        "to write results with every key",
        _FORGE
        + """
def f(x):
    write(b'{"ok": {"": []}}\\n{"ok": {"list": [], "tuple": 1}}\\n')
""",
    ),
    Attack(
        "patched_builtins",
        "to change what the sandbox calls",
        """
import builtins, json
builtins.len = lambda x: 1
builtins.isinstance = builtins.issubclass = lambda *_: True
builtins.type = lambda x: int
builtins.print = builtins.repr = lambda *_: "ok"
builtins.__import__ = lambda *_, **__: json
builtins.map = lambda *_: []
json.dumps = lambda *_, **__: '{"ok": true}'
def f(x):
    return True
""",
    ),
    Attack(
        "patched_modules",
        "to replace what the sandbox has imported",
        """
import sys, types
for name in list(sys.modules):
    if name.startswith("metaagentx") or name in ("json", "os", "io", "__main__"):
        fake = types.ModuleType(name)
        fake.same = fake.spell = fake.rebuild = fake.dumps = fake.loads = lambda *_, **__: True
        sys.modules[name] = fake
def f(x):
    return True
""",
    ),
    Attack(
        "patched_spelling",
        "to write its values in another way",
        """
import metaagentx.tools.answering as answering, metaagentx.tools.spelling as spelling
spelling.same = lambda *_: True
answering.spell = lambda value: {"list": {"": True}}
answering._explain = lambda error: "ok"
def f(x):
    return object()
""",
    ),
    Attack(
        "patched_frames",
        "to change the variables of whoever calls it",
        """
import ctypes, sys
def f(x):
    frame = sys._getframe()
    while frame:
        for name in list(frame.f_locals):
            frame.f_locals[name] = True
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
        frame = frame.f_back
    return True
""",
    ),
    Attack(
        "looks_for_the_answer",
        "to find the expected result in memory",
        """
import gc, sys
def f(x):
    sought = int("".join(["9182", "73645"]))
    frame, seen = sys._getframe(), []
    while frame:
        seen += [frame.f_locals, frame.f_globals]
        frame = frame.f_back
    for thing in [*gc.get_objects(), *seen]:
        if isinstance(thing, (list, tuple, dict)):
            values = thing.values() if isinstance(thing, dict) else thing
            if any(type(v) is int and v == sought and v is not sought for v in list(values) if v is not thing):
                if thing is not sys._getframe().f_locals and "sought" not in (thing if isinstance(thing, dict) else ()):
                    return "escaped"
    return 0
""",
    ),
    Attack(
        "reads_the_request",
        "to find more than its own calls in what was sent",
        """
import gc
def f(x):
    for thing in gc.get_objects():
        if isinstance(thing, dict) and {"result", "wanted", "expected", "tests"} & {k for k in thing if type(k) is str}:
            if any("9182" + "73645" in str(v)[:10**4] for v in list(thing.values()) if type(v) in (list, str, int)):
                return "escaped"
    return 0
""",
    ),
    Attack(
        "thread_that_forges",
        "to answer in place of the main thread",
        _FORGE
        + """
import threading
def run():
    while True:
        write(b'{"ok": true}\\n')
threading.Thread(target=run, daemon=True).start()
def f(x):
    import time
    time.sleep(0.2)
""",
    ),
    Attack(
        "kept_for_the_next",
        "to change the interpreter of the program after it",
        """
import builtins, sys
builtins.kept_by_an_attack = True
sys.modules["kept_by_an_attack"] = sys
sys.path.insert(0, "/kept_by_an_attack")
def f(x):
    return 0
""",
    ),
    Attack(
        "hooks",
        "to be called when others import, trace or exit",
        """
import atexit, sys
class Finder:
    def find_spec(self, *_): return None
sys.meta_path.insert(0, Finder())
sys.settrace(lambda *_: None)
sys.setprofile(lambda *_: None)
sys.excepthook = sys.unraisablehook = lambda *_: None
sys.addaudithook(lambda *_: None)
atexit.register(print)
def f(x):
    return 0
""",
    ),
    Attack("zero_in_the_source", "a program with a zero byte", "x = 1\x00\ndef f(x): return 0"),
    Attack("surrogate_in_the_source", "a program that is no text", "x = '\ud800'\ndef f(x): return 0"),
    Attack("coding", "a program in a coding that hides it", "# -*- coding: utf-7 -*-\n+AGYAPQAx-\ndef f(x): return 0"),
    Attack(
        "direction", "a program that reads otherwise than it runs", "x = '\u202e\u2066' # \u2069\ndef f(x): return 0"
    ),
    Attack(
        "other_letters",
        "a function whose name only looks right",
        "def attack(): return 1\ndef ƒ(x): return 1\ndel attack",
    ),
    Attack(
        "names",
        "to be found by names that mean more",
        "__name__ = '__main__'\n__builtins__ = {}\nf = __name__\ndef attack(): pass",
    ),
)
