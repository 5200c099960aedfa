"""Rewards and policies learned from sessions: GELI. Nothing of it is built yet (issue 3)."""
