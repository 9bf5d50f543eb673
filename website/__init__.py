"""The documentation site: what mkdocs builds from this checkout."""
