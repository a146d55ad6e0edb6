"""MixGRPO (arXiv 2507.21802): reinforcement learning of flow-matching image models, as a pipeline.

Layers, top to bottom; each imports only what stands below it: `__main__` (verbs) -> `stages` (one file
per Snakemake rule) -> `training`, `report` -> `models`, `rewards`, `tiny` -> `algorithm` -> `records`,
`config`, `provenance`, `errors`. Nothing is imported here, so that a workflow can read configuration
without loading torch.
"""

__version__ = "0.1.0"
