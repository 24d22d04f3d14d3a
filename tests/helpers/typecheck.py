"""The checker of annotations that `make test` applies to every call in most tests."""

import inspect
import random
from unittest.mock import patch

# It looks at random items of lists. They are drawn from a stream of its own, since many tests ask
# whether Python's own was moved; it imports the function that draws them when it is imported.
with patch.object(random, "getrandbits", random.Random(0).getrandbits):
    from beartype import BeartypeConf, beartype
    from beartype._check.code import codemain

assert codemain.getrandbits is not random.getrandbits, "the checker shares Python's stream"

# An int is accepted where a float is expected, as static type checkers do.
_asserted = beartype(conf=BeartypeConf(is_pep484_tower=True))
_functions = {}


def strict(function):
    """Assert the annotations of what jaxtyping hands over: a function of the signature alone.

    A function inside another is handed over at every call of the other, ten thousand times in some
    files of tests. Its assertions are compiled once for each signature as it is written, since
    jaxtyping makes a new type at every call.
    """
    if "<locals>" not in function.__qualname__:
        return _asserted(function)
    key = function.__module__, function.__qualname__, str(inspect.signature(function))
    if key not in _functions:
        _functions[key] = _asserted(function)
    return _functions[key]
