"""Exercise 1: the nodes of a graph, inputs first."""


def order(node):
    """Inputs first: a node is listed when all its inputs are."""
    found, listed, stack = [], set(), [node]
    while stack:
        top = stack[-1]
        waiting = [x for x in top.inputs if id(x) not in listed]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        if id(top) not in listed:
            listed.add(id(top))
            found.append(top)
    return found
