"""The Faust workers: the only package that imports faust."""
