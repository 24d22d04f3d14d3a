"""The checker of annotations that `make -C tools shapes` applies to every call."""

from beartype import BeartypeConf, beartype

# An int is accepted where a float is expected, as static type checkers do.
strict = beartype(conf=BeartypeConf(is_pep484_tower=True))
