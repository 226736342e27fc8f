"""The page: turns the library's frames into pictures and words."""
