"""Faces, facial affect, 2-second windows and prosody. Knows nothing of calls."""
