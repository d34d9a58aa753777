# hint: Is there a `return`
import math


def value_and_gradients(a, b, c):
    t = math.tanh(a * b + c)
    g = a * (1 - t * t)
    print(t * a, g * b + t, g * a, g)
