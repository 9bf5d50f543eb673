"""Networks on disk: their model card, their files, and one way to load any."""
