"""A task of brainlife.io: its ``config.json`` in, the command run, its ``product.json`` out."""
