"""The command's options and what each analysis level does with them, a module per level."""
