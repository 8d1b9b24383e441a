"""Alembic migrations, run from inside the installed package."""
