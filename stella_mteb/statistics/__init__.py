"""How sure a figure is, on arrays alone: what `compare` and `judge` say of differences comes from here."""
