"""Rewards and policies learned from sessions: GELI, from session logs to the next adapter.

Read in this order: `dialogue` (what is learned from), `data/` (where it comes from), `features` and
`reward` (r_θ), `decomposition` (the losses of the paper), `trainer`, `table` (the paper's Table 3),
`policy/` (LoRA + PPO), `compare` (Table 2), `rounds` and `registry` (the next policy).
"""
