"""One file per Snakemake rule: reads files, writes files, imports no other stage."""
