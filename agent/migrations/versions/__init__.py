"""Alembic migrations of the session store, from the first table on."""
