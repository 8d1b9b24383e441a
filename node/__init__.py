"""The application: everything that talks to the outside, or decides."""
