"""The codes of all checks, known without what the checks need."""

from collections.abc import Collection

# Of predictions and studies, then of networks; a code is never given to another check.
KNOWN = (
    *(f"MCBN{number:03}" for number in range(1, 26)),
    *(f"MCBN{number}" for number in range(101, 128)),
)


def require_codes(codes: Collection[str]) -> None:
    """Check that there is a check of each code.

    Raises:
        ValueError: there is none.
    """
    unknown = [code for code in codes if code not in KNOWN]
    if unknown:
        raise ValueError(
            f"expected codes of checks, such as {KNOWN[0]}, got {unknown}; docs/checks.md "
            "lists them"
        )
