"""The live call: its engines, its web page and the session store."""

__version__ = "0.1.0"
