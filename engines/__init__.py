"""From image series to findings. Knows no network, no SQL, no result object."""
