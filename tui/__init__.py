"""Terminal review of sessions and policies. Nothing of it is built yet (issue 4)."""
