"""What a cut costs and saves, and how much of each group to remove."""
