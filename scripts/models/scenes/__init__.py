"""The small text-to-image model in models/scenes: what it draws, how it was trained and how it is judged."""
