# hint: The long path, from a through p, q and t, is missing
import math


def value_and_gradients(a, b, c):
    p = a * b
    q = p + c
    t = math.tanh(q)
    y = t * a
    dt = a
    dq = dt * (1 - t * t)
    dc = dq
    db = dq * a
    da = t
    return y, da, db, dc
