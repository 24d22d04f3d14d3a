"""The checker of annotations that `make -C tools shapes` applies to every call."""

import random
from unittest.mock import patch

# It looks at random items of lists. They are drawn from a stream of its own, since many tests ask
# whether Python's own was moved; it imports the function that draws them when it is imported.
with patch.object(random, "getrandbits", random.Random(0).getrandbits):
    from beartype import BeartypeConf, beartype
    from beartype._check.code import codemain

assert codemain.getrandbits is not random.getrandbits, "the checker shares Python's stream"

# An int is accepted where a float is expected, as static type checkers do.
strict = beartype(conf=BeartypeConf(is_pep484_tower=True))
