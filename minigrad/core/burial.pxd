# Where what a node held waits when the node died too deep inside of others: tensor.pyx says when.
from cpython.object cimport PyObject

cdef extern from *:
    """
    #include <stdlib.h>

    /* What nodes held that died too deep inside of each other: the outermost releases it. */
    static _Thread_local int mg_depth = 0;
    static _Thread_local struct { PyObject **items; size_t count, capacity; } mg_dead;

    static int mg_bury(PyObject *object) {
        if (mg_dead.count == mg_dead.capacity) {
            size_t capacity = mg_dead.capacity ? 2 * mg_dead.capacity : 256;
            PyObject **items = realloc(mg_dead.items, capacity * sizeof *items);
            if (items == NULL)
                return 0;
            mg_dead.items = items;
            mg_dead.capacity = capacity;
        }
        mg_dead.items[mg_dead.count++] = object;
        return 1;
    }

    static void mg_release_buried(void) {
        if (mg_dead.items == NULL)
            return;
        while (mg_dead.count) {
            PyObject *object = mg_dead.items[--mg_dead.count];
            Py_DECREF(object);
        }
        free(mg_dead.items);
        mg_dead.items = NULL;
        mg_dead.capacity = 0;
    }
    """
    int mg_depth
    bint mg_bury(PyObject *object) noexcept
    void mg_release_buried() noexcept
