# hint: c is an input like a and b
import math


def value_and_gradients(a, b, c):
    p = a * b
    q = p + c
    t = math.tanh(q)
    y = t * a
    dt = a
    dq = dt * (1 - t * t)
    dc = 0.0
    db = dq * a
    da = dq * b + t
    return y, da, db, dc
