"""Policies side by side on the same held-out histories: the paper's Table 2 as a program.

`measures` and `probes` read the replies, `judge` asks a language model, `sheet` asks people,
`table` puts intervals on all of it.
"""
