#!/usr/bin/env bash
# After environment.yml: what a `pip:` block cannot say. The pins of requirements-nodeps.lock, which is not at hand
# where Snakemake runs this.
set -euo pipefail
python -m pip install --no-deps \
    hpsv2==1.2.0 \
    image-reward==1.5 \
    open_clip_torch==3.3.0 \
    timm==1.0.31
