"""What stands in an output folder."""
