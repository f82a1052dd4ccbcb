"""What all reports share: one HTML page that needs nothing else, its parts, its figures."""
