"""Adapting the policy to a reward: LoRA, PPO, and replies written by what came of it."""
