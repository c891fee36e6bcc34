"""How good detection is: every attack at every strength, quiet weeks, each detector alone, and what others publish."""
