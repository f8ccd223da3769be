"""Program 4: plays exported policies: scores and videos."""
