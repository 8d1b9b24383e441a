"""State: instance bytes and SQL rows. Knows no network, no engine, no result object."""
