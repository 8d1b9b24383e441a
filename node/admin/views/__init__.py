"""One file a subject: its pages and its part of the JSON API. Nothing here writes."""
