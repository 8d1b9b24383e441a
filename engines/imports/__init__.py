"""One file per format that says itself how its net is run."""
