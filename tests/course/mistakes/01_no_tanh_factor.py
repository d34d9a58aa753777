# hint: tanh' = 1 - t^2, is missing
import math


def value_and_gradients(a, b, c):
    p = a * b
    q = p + c
    t = math.tanh(q)
    y = t * a
    dt = a
    dq = dt
    dc = dq
    db = dq * a
    da = dq * b + t
    return y, da, db, dc
