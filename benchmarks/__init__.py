"""What it costs, as ratios against baselines of the same run."""
