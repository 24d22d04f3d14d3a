"""What is not right yet, by network: entries, or families of entries that all fail."""

KNOWN: dict[str, str] = {
    # The file takes the network's type: `export` casts the example; who calls it does not.
    "float64 inputs of a float32 network": "export",
}
