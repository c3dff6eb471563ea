"""Finished runs side by side: tables, comparisons, leaderboard entries."""
