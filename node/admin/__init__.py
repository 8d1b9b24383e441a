"""The admin page and the JSON API."""
