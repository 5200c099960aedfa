"""Engines: speech, language and voice models behind small Protocols."""
