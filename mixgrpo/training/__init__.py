"""What one iteration is made of: rollout, rewards, advantages, update, checkpoint.

May import models, rewards, algorithm, records, config, files. `distributed.py` alone knows ranks and
accelerate.
"""
