"""The bench of the photons: what `scripts/bench-photons` is made of."""
