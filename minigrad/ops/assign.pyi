# Nothing here is for Python: operators of Tensor call it.
