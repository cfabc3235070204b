"""Site of the documentation: hooks of mkdocs, and the reference of the command line."""
