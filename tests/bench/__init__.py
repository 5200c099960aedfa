"""Measurements, run by `geli bench`; never asserted on."""
