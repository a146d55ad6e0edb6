"""What the workflow plans by: config/ read strictly, checked, resolved, and handed on as JSON.

`load.load` is the door. Torch-free and without side effects. May import config, errors,
provenance and tiny.config.
"""
