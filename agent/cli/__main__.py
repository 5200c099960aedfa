"""`python -m agent.cli`: what `accelerate launch -m` starts."""

from agent.cli import main

main()
