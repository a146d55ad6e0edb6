"""Whether a Slurm cluster can run what is about to be submitted: asked once, on the submit host, in plain words.

`commands` runs Slurm's own, `inventory`, `profile` and `needs` read, `fit`, `site` and `probe` compare,
`preflight` puts the questions in order. Each finding is one sentence: what is there, what is wanted, what to do.
"""
