"""The ops, by families: each is one block with its value and its backward rule."""
