"""What a run decided against what is true of a drill: found, covered, how soon, and at whose cost."""
