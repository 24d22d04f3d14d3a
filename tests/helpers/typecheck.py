"""The checker that turns every annotation of the package into an assertion while testing."""

from beartype import BeartypeConf, beartype

# An int is accepted where a float is asked for, as type checkers do.
strict = beartype(conf=BeartypeConf(is_pep484_tower=True))
