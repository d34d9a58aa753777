# Nothing here is for Python: the other op modules call it.
