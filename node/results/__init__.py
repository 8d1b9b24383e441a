"""Result objects, one file each."""
