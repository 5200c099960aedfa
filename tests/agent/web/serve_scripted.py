"""`geli call` with engines that need no weights, in every worker: spawned processes run this file
again, under another name, before they begin."""

import sys

import agent.host
import agent.weights
from tests import scripted

agent.host.build = lambda config: scripted.engines()  # type: ignore[assignment]
agent.weights.ensure_all = lambda config: None  # type: ignore[assignment]

if __name__ == "__main__":
    from agent.cli import main

    sys.argv[1:] = ["call", "--set", "perception.enabled=false", *sys.argv[1:]]
    main()
