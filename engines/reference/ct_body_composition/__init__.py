"""The package ct-body-composition: data for `engines.package`, and the script that makes it."""
