"""One file per inference runtime; heavy libraries are imported inside."""
