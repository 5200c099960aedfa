"""`geli review`: a person reads sessions, corrects them, and decides which policy goes live.

    app.py        the application: its tabs, the store's pulse, work in the background
    sessions.py   the list of sessions; session.py: one of them; filters.py: which are listed
    policies.py   rewards and policies, gates, curves; promote and roll back
    rounds.py     rounds: run, watch, cancel, come back; jobs.py: the processes behind them
    blind.py      two replies to one history, rated without knowing who wrote which
    privacy.py    consent, retention, one person's sessions, deletion

It reads the store and the registry of every other program and loads neither torch nor aiortc: what
needs a model is a `geli learn …` of its own in the background.
"""
