"""The contestants of recurrent.py: minigrad and its peers. Each runs in a process of its own, makes
a layer from given weights, and runs it on request.

A contestant is a class with the methods

    __init__(threads)       import the library, with this number of threads
    setup(cell, arrays)     make the layer: "RNN", "LSTM", "BiLSTM" or "GRU"
    infer()                 one forward pass; returns [outputs]
    train()                 one training step; returns [outputs, dW, dU, dW, dU, ...]

`arrays` has the inputs "x" (T, B, I) and lists of weights, one for each direction, in minigrad's
layout: "W" (I, G H), "U" (H, G H), "b" (G H). The gates are i, f, g, o in the LSTM, and r, z, n in
the GRU. The GRU has its reset gate after the product, and its b has H more elements: the bias u
inside of the reset. A contestant without `train` takes part in inference only.
"""

import ctypes
import gc
import os

from _measure import timed

# ---------------------------------------------------------------- minigrad


class Minigrad:
    """The fused layers of minigrad."""

    def __init__(self, threads):
        import minigrad as mg

        self.mg = mg
        mg.set_num_threads(threads)

    def setup(self, cell, arrays):
        mg = self.mg
        I = arrays["x"].shape[2]
        H = arrays["U"][0].shape[0]
        if cell == "RNN":
            self.layer = mg.nn.RNN(I, H)
        elif cell == "GRU":
            self.layer = mg.nn.GRU(I, H, reset_after=True)
        else:
            self.layer = mg.nn.LSTM(I, H, bidirectional=cell == "BiLSTM")
        self.x = mg.Tensor(arrays["x"])
        with mg.no_grad():
            for direction, its_cell in enumerate(self.layer.cells):
                its_cell.W[...] = arrays["W"][direction]
                its_cell.U[...] = arrays["U"][direction]
                its_cell.b[...] = arrays["b"][direction]

    def infer(self):
        with self.mg.no_grad():
            out, _ = self.layer(self.x)
        return [out.numpy()]

    def train(self):
        self.layer.zero_grad()
        out, _ = self.layer(self.x)
        (out * out).mean().backward()
        results = [out.numpy()]
        for cell in self.layer.cells:
            results += [cell.W.grad.numpy(), cell.U.grad.numpy()]
        return results


# ---------------------------------------------------------------- PyTorch


class Torch:
    """PyTorch's layers, eager. Its second bias is zero, but for the part that is the GRU's u."""

    def __init__(self, threads):
        import torch

        self.torch = torch
        torch.set_num_threads(threads)

    def setup(self, cell, arrays):
        torch = self.torch
        I = arrays["x"].shape[2]
        H = arrays["U"][0].shape[0]
        kind = getattr(torch.nn, cell.removeprefix("Bi"))
        self.layer = kind(I, H, bidirectional=cell == "BiLSTM")
        self.x = torch.tensor(arrays["x"])
        with torch.no_grad():
            for direction, U in enumerate(arrays["U"]):
                suffix = "l0_reverse" if direction else "l0"
                W = arrays["W"][direction]
                b = arrays["b"][direction]
                columns = U.shape[1]
                getattr(self.layer, f"weight_ih_{suffix}").copy_(torch.tensor(W.T.copy()))
                getattr(self.layer, f"weight_hh_{suffix}").copy_(torch.tensor(U.T.copy()))
                getattr(self.layer, f"bias_ih_{suffix}").copy_(torch.tensor(b[:columns]))
                second_bias = getattr(self.layer, f"bias_hh_{suffix}").zero_()
                if cell == "GRU":
                    second_bias[2 * H :] = torch.tensor(b[columns:])
        self.weights = [p for name, p in self.layer.named_parameters() if name.startswith("weight")]

    def infer(self):
        with self.torch.inference_mode():
            out, _ = self.layer(self.x)
        return [out.numpy()]

    def train(self):
        self.layer.zero_grad()
        out, _ = self.layer(self.x)
        (out * out).mean().backward()
        return [out.detach().numpy(), *(p.grad.numpy().T for p in self.weights)]


class TorchCompiled(Torch):
    """The same under torch.compile."""

    def setup(self, cell, arrays):
        super().setup(cell, arrays)
        self.layer = self.torch.compile(self.layer)


# ---------------------------------------------------------------- JAX


def jax_rnn_step(jnp, sigmoid, U, u, h, a):
    """The next state of an RNN from its state h and the input's part a of the sums."""
    return jnp.tanh(a + h @ U)


def jax_lstm_step(jnp, sigmoid, U, u, state, a):
    h, c = state
    i, f, g, o = jnp.split(a + h @ U, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return h, c


def jax_gru_step(jnp, sigmoid, U, u, h, a):
    a_r, a_z, a_n = jnp.split(a, 3, axis=1)
    h_r, h_z, h_n = jnp.split(h @ U, 3, axis=1)
    r = sigmoid(a_r + h_r)
    z = sigmoid(a_z + h_z)
    n = jnp.tanh(a_n + r * (h_n + u))
    return (1 - z) * n + z * h


JAX_STEPS = {
    "RNN": jax_rnn_step,
    "LSTM": jax_lstm_step,
    "BiLSTM": jax_lstm_step,
    "GRU": jax_gru_step,
}


class Jax:
    """lax.scan under jit. The product of inputs and weights is taken out of the scan."""

    def __init__(self, threads):
        several = "true" if threads > 1 else "false"
        os.environ["XLA_FLAGS"] = (
            f"--xla_cpu_multi_thread_eigen={several} intra_op_parallelism_threads={threads}"
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        import jax

        self.jax = jax

    def setup(self, cell, arrays):
        jax = self.jax
        jnp = jax.numpy
        step = JAX_STEPS[cell]
        B = arrays["x"].shape[1]
        H = arrays["U"][0].shape[0]
        zeros = jnp.zeros((B, H))
        start = (zeros, zeros) if "LSTM" in cell else zeros

        def run_direction(x, W, U, b, reverse):
            columns = U.shape[1]

            def one_step(state, a):
                state = step(jnp, jax.nn.sigmoid, U, b[columns:], state, a)
                h = state[0] if "LSTM" in cell else state
                return state, h

            _, out = jax.lax.scan(one_step, start, x @ W + b[:columns], reverse=reverse)
            return out

        def run(weights, x):
            outs = []
            for direction, (W, U, b) in enumerate(weights):
                outs.append(run_direction(x, W, U, b, reverse=direction == 1))
            return jnp.concatenate(outs, axis=2)

        def loss(weights, x):
            out = run(weights, x)
            return (out * out).mean(), out

        self.weights = []
        for W, U, b in zip(arrays["W"], arrays["U"], arrays["b"], strict=True):
            self.weights.append((jnp.asarray(W), jnp.asarray(U), jnp.asarray(b)))
        self.x = jnp.asarray(arrays["x"])
        self.run = jax.jit(run)
        self.grad = jax.jit(jax.grad(loss, has_aux=True))

    def infer(self):
        return [self.jax.block_until_ready(self.run(self.weights, self.x))]

    def train(self):
        gradients, out = self.jax.block_until_ready(self.grad(self.weights, self.x))
        results = [out]
        for dW, dU, _ in gradients:
            results += [dW, dU]
        return results


# ---------------------------------------------------------------- ONNX Runtime


# Which of minigrad's gates stand where in ONNX: i, o, f, g in the LSTM, z, r, n in the GRU.
ONNX_GATES = {"RNN": [0], "LSTM": [0, 3, 1, 2], "BiLSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}


class OnnxRuntime:
    """ONNX Runtime's recurrent operators; inference only."""

    def __init__(self, threads):
        import onnxruntime

        self.onnxruntime = onnxruntime
        self.threads = threads

    def setup(self, cell, arrays):
        options = self.onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = self.onnxruntime.InferenceSession(
            onnx_model(cell, arrays), options, providers=["CPUExecutionProvider"]
        )
        self.x = arrays["x"]

    def infer(self):
        (y,) = self.session.run(None, {"x": self.x})  # (T, directions, B, H)
        T, _, B, _ = y.shape
        return [y.transpose(0, 2, 1, 3).reshape(T, B, -1)]


def onnx_weights(cell, arrays):
    """W (directions, G H, I), R (directions, G H, H) and B (directions, 2 G H) of ONNX."""
    import numpy as np

    gates = ONNX_GATES[cell]
    H = arrays["U"][0].shape[0]
    columns = len(gates) * H

    def reordered(matrix):
        blocks = np.split(matrix, len(gates), axis=-1)
        return np.concatenate([blocks[gate] for gate in gates], axis=-1)

    biases = []
    for b in arrays["b"]:
        second_bias = np.zeros_like(b[:columns])
        if cell == "GRU":
            second_bias[2 * H :] = b[columns:]
        biases.append(np.concatenate([reordered(b[:columns]), second_bias]))
    return {
        "W": np.stack([reordered(W).T for W in arrays["W"]]),
        "R": np.stack([reordered(U).T for U in arrays["U"]]),
        "B": np.stack(biases),
    }


def onnx_model(cell, arrays):
    """A model of one recurrent operator, as bytes."""
    from onnx import TensorProto, helper, numpy_helper

    attributes = {
        "hidden_size": arrays["U"][0].shape[0],
        "direction": "bidirectional" if cell == "BiLSTM" else "forward",
    }
    if cell == "GRU":
        attributes["linear_before_reset"] = 1
    operator = cell.removeprefix("Bi")
    graph = helper.make_graph(
        nodes=[helper.make_node(operator, ["x", "W", "R", "B"], ["y"], **attributes)],
        name="layer",
        inputs=[helper.make_tensor_value_info("x", TensorProto.FLOAT, arrays["x"].shape)],
        outputs=[helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializer=[
            numpy_helper.from_array(array, name)
            for name, array in onnx_weights(cell, arrays).items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    return model.SerializeToString()


# ---------------------------------------------------------------- NumPy


class NumPy:
    """A loop over the steps in NumPy, inference only: what any library should be faster than."""

    def __init__(self, threads):
        import numpy

        self.np = numpy

    def setup(self, cell, arrays):
        self.cell = cell
        self.arrays = arrays

    def infer(self):
        outs = []
        for direction in range(len(self.arrays["U"])):
            outs.append(self.run_direction(direction))
        return [self.np.concatenate(outs, axis=2)]

    def run_direction(self, direction):
        np = self.np
        x = self.arrays["x"]
        W = self.arrays["W"][direction]
        U = self.arrays["U"][direction]
        b = self.arrays["b"][direction]
        T, B, _ = x.shape
        H, columns = U.shape
        u = b[columns:]
        a = x @ W + b[:columns]
        h = np.zeros((B, H), a.dtype)
        c = np.zeros((B, H), a.dtype)
        out = np.empty((T, B, H), a.dtype)
        for t in reversed(range(T)) if direction else range(T):
            if self.cell == "RNN":
                h = np.tanh(a[t] + h @ U)
            elif self.cell == "GRU":
                a_r, a_z, a_n = np.split(a[t], 3, axis=1)
                h_r, h_z, h_n = np.split(h @ U, 3, axis=1)
                r = self.sigmoid(a_r + h_r)
                z = self.sigmoid(a_z + h_z)
                n = np.tanh(a_n + r * (h_n + u))
                h = (1 - z) * n + z * h
            else:
                i, f, g, o = np.split(a[t] + h @ U, 4, axis=1)
                c = self.sigmoid(f) * c + self.sigmoid(i) * np.tanh(g)
                h = self.sigmoid(o) * np.tanh(c)
            out[t] = h
        return out

    def sigmoid(self, a):
        return 1 / (1 + self.np.exp(-a))


PEERS = {
    "minigrad": Minigrad,
    "torch": Torch,
    "torch.compile": TorchCompiled,
    "jax": Jax,
    "onnxruntime": OnnxRuntime,
    "numpy": NumPy,
}


# ---------------------------------------------------------------- the process of a contestant


def status(field):
    """A size in bytes from /proc/self/status."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def peak_memory(call):
    """The bytes by which the process grows at its peak during a call (Linux only).

    Before it, free memory goes back to the system, and the peak so far is forgotten.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def answer(peer, request, *arguments):
    """What a contestant answers to a request.

    setup CELL ARRAYS       nothing
    results MODE            copies of what `infer` or `train` returns
    memory MODE             the bytes by which the process grows at most
    time MODE REPEATS       the mean seconds of a call
    """
    import numpy as np

    if request == "setup":
        return peer.setup(*arguments)
    mode, *rest = arguments
    call = getattr(peer, mode)
    if request == "results":
        return [np.array(result) for result in call()]
    if request == "memory":
        return peak_memory(call)
    if request == "time":
        (repeats,) = rest
        call()  # not counted: it wakes caches and threads, as steps in a training are
        return timed(call, repeats)
    raise ValueError(f"unknown request {request}")


def serve(name, threads, pipe):
    """Run a contestant: say whether it is there, then answer requests until one is "stop"."""
    try:
        peer = PEERS[name](threads)
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send(None)
    while True:
        request = pipe.recv()
        if request == ("stop",):
            return
        try:
            pipe.send(answer(peer, *request))
        except Exception as error:  # what a peer cannot do is reported, and does not end the run
            pipe.send(error)
