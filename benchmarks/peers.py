"""The contestants of recurrent.py: each runs in a process of its own, makes a layer from given
weights, and does steps on request.

A contestant is a class with `setup(cell, arrays)`, which returns nothing, `infer()`, and `train()`;
both return what can be
checked: the outputs, and for train() the gradients of the weights as well. Weights are in
minigrad's layout: W (I, G H), U (H, G H), b (G H), for each direction; gates i, f, g, o for the
LSTM and r, z, n for the GRU, with the vector u inside the reset.
"""

import ctypes
import gc
import os
import time


class Minigrad:
    """The fused layers of minigrad."""

    def __init__(self, threads):
        import minigrad as mg

        self.mg = mg
        mg.set_num_threads(threads)

    def setup(self, cell, arrays):
        mg, self.x = self.mg, self.mg.Tensor(arrays["x"])
        kinds = {"RNN": mg.nn.RNN, "LSTM": mg.nn.LSTM, "BiLSTM": mg.nn.LSTM, "GRU": mg.nn.GRU}
        options = (
            {"bidirectional": True}
            if cell == "BiLSTM"
            else {"reset_after": True}
            if cell == "GRU"
            else {}
        )
        I, H = arrays["x"].shape[2], arrays["U"][0].shape[0]
        self.layer = kinds[cell](I, H, **options)
        with mg.no_grad():
            for c, W, U, b in zip(
                self.layer.cells, arrays["W"], arrays["U"], arrays["b"], strict=True
            ):
                c.W[...], c.U[...], c.b[...] = W, U, b

    def infer(self):
        with self.mg.no_grad():
            return [self.layer(self.x)[0].numpy()]

    def train(self):
        self.layer.zero_grad()
        out, _ = self.layer(self.x)
        (out * out).mean().backward()
        return [out.numpy(), *(p.grad.numpy() for c in self.layer.cells for p in (c.W, c.U))]


class Torch:
    """PyTorch's layers, eager; one of its two biases is zero but for the GRU's u."""

    def __init__(self, threads):
        import torch

        self.torch = torch
        torch.set_num_threads(threads)

    def setup(self, cell, arrays):
        torch, np_x = self.torch, arrays["x"]
        self.x = torch.tensor(np_x)
        I, H = np_x.shape[2], arrays["U"][0].shape[0]
        kind = {
            "RNN": torch.nn.RNN,
            "LSTM": torch.nn.LSTM,
            "BiLSTM": torch.nn.LSTM,
            "GRU": torch.nn.GRU,
        }[cell]
        self.layer = kind(I, H, bidirectional=cell == "BiLSTM")
        with torch.no_grad():
            for suffix, W, U, b in zip(
                ("l0", "l0_reverse"), arrays["W"], arrays["U"], arrays["b"], strict=False
            ):
                getattr(self.layer, f"weight_ih_{suffix}").copy_(torch.tensor(W.T.copy()))
                getattr(self.layer, f"weight_hh_{suffix}").copy_(torch.tensor(U.T.copy()))
                getattr(self.layer, f"bias_ih_{suffix}").copy_(torch.tensor(b[: U.shape[1]]))
                inner = getattr(self.layer, f"bias_hh_{suffix}").zero_()
                if cell == "GRU":
                    inner[2 * H :] = torch.tensor(b[3 * H :])
        self.weights = [p for name, p in self.layer.named_parameters() if name.startswith("weight")]

    def infer(self):
        with self.torch.inference_mode():
            return [self.layer(self.x)[0].numpy()]

    def train(self):
        self.layer.zero_grad()
        out = self.layer(self.x)[0]
        (out * out).mean().backward()
        return [out.detach().numpy(), *(p.grad.numpy().T for p in self.weights)]


class TorchCompiled(Torch):
    """The same under torch.compile."""

    def setup(self, cell, arrays):
        super().setup(cell, arrays)
        self.layer = self.torch.compile(self.layer)


class Jax:
    """lax.scan under jit, the input projection hoisted out of the scan."""

    def __init__(self, threads):
        os.environ["XLA_FLAGS"] = (
            f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'} intra_op_parallelism_threads={threads}"
        )
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        import jax

        self.jax = jax

    def setup(self, cell, arrays):
        jax = self.jax
        jnp, sigmoid = jax.numpy, jax.nn.sigmoid
        H, B = arrays["U"][0].shape[0], arrays["x"].shape[1]

        def step(U, b):
            if cell == "RNN":

                def one(h, a):
                    h = jnp.tanh(a + h @ U)
                    return h, h

                return one, jnp.zeros((B, H))
            if cell == "GRU":

                def one(h, a):
                    u = h @ U
                    r, z = sigmoid(a[:, :H] + u[:, :H]), sigmoid(a[:, H : 2 * H] + u[:, H : 2 * H])
                    n = jnp.tanh(a[:, 2 * H :] + r * (u[:, 2 * H :] + b[3 * H :]))
                    h = (1 - z) * n + z * h
                    return h, h

                return one, jnp.zeros((B, H))

            def one(state, a):
                h, c = state
                i, f, g, o = jnp.split(a + h @ U, 4, axis=1)
                c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
                h = sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            return one, (jnp.zeros((B, H)), jnp.zeros((B, H)))

        def run(weights, x):
            outs = []
            for reverse, (W, U, b) in zip((False, True), weights, strict=False):
                one, start = step(U, b)
                outs.append(jax.lax.scan(one, start, x @ W + b[: U.shape[1]], reverse=reverse)[1])
            return jnp.concatenate(outs, axis=2)

        def loss(weights, x):
            out = run(weights, x)
            return (out * out).mean(), out

        self.weights = [
            tuple(map(jnp.asarray, w))
            for w in zip(arrays["W"], arrays["U"], arrays["b"], strict=True)
        ]
        self.x, self.run, self.grad = (
            jnp.asarray(arrays["x"]),
            jax.jit(run),
            jax.jit(jax.grad(loss, has_aux=True)),
        )

    def infer(self):
        return [self.jax.block_until_ready(self.run(self.weights, self.x))]

    def train(self):
        gradients, out = self.jax.block_until_ready(self.grad(self.weights, self.x))
        return [out, *(g for W, U, _ in gradients for g in (W, U))]


class OnnxRuntime:
    """ONNX Runtime's recurrent operators; inference only."""

    def __init__(self, threads):
        import onnxruntime

        self.ort, self.threads = onnxruntime, threads

    def setup(self, cell, arrays):
        import numpy as np
        from onnx import TensorProto, helper, numpy_helper

        H, D = arrays["U"][0].shape[0], len(arrays["U"])
        order = {"RNN": [0], "LSTM": [0, 3, 1, 2], "BiLSTM": [0, 3, 1, 2], "GRU": [1, 0, 2]}[
            cell
        ]  # of the gates in ONNX

        def turned(m):
            blocks = np.split(m, m.shape[-1] // H, axis=-1)
            return np.concatenate([blocks[k] for k in order], axis=-1)

        W, U = (np.stack([turned(m).T for m in arrays[name]]) for name in "WU")
        inner = [np.zeros_like(b[: len(order) * H]) for b in arrays["b"]]
        if cell == "GRU":
            for zero, b in zip(inner, arrays["b"], strict=True):
                zero[2 * H :] = b[3 * H :]
        b = np.stack(
            [
                np.concatenate([turned(b[: len(order) * H]), i])
                for b, i in zip(arrays["b"], inner, strict=True)
            ]
        )
        node = helper.make_node(
            cell.removeprefix("Bi"),
            ["x", "W", "R", "B"],
            ["y"],
            hidden_size=H,
            direction="bidirectional" if D == 2 else "forward",
            **({"linear_before_reset": 1} if cell == "GRU" else {}),
        )
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, arrays["x"].shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(a, name) for a, name in ((W, "W"), (U, "R"), (b, "B"))],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        self.session = self.ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.x = arrays["x"]

    def infer(self):
        y = self.session.run(None, {"x": self.x})[0]
        return [y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)]


class NumPy:
    """A loop over the steps in NumPy; inference only: the floor."""

    def __init__(self, threads):
        import numpy

        self.np = numpy

    def setup(self, cell, arrays):
        self.cell, self.arrays = cell, arrays

    def infer(self):
        np, arrays = self.np, self.arrays
        T, B, _ = arrays["x"].shape
        outs = []

        def sigmoid(a):
            return 1 / (1 + np.exp(-a))

        for times, W, U, b in zip(
            (range(T), range(T - 1, -1, -1)), arrays["W"], arrays["U"], arrays["b"], strict=False
        ):
            H = U.shape[0]
            a = arrays["x"] @ W + b[: U.shape[1]]
            h, c, out = (
                np.zeros((B, H), a.dtype),
                np.zeros((B, H), a.dtype),
                np.empty((T, B, H), a.dtype),
            )
            for t in times:
                u = h @ U
                if self.cell == "RNN":
                    h = np.tanh(a[t] + u)
                elif self.cell == "GRU":
                    r, z = (
                        sigmoid(a[t, :, :H] + u[:, :H]),
                        sigmoid(a[t, :, H : 2 * H] + u[:, H : 2 * H]),
                    )
                    n = np.tanh(a[t, :, 2 * H :] + r * (u[:, 2 * H :] + b[3 * H :]))
                    h = (1 - z) * n + z * h
                else:
                    i, f, g, o = np.split(a[t] + u, 4, axis=1)
                    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                    h = sigmoid(o) * np.tanh(c)
                out[t] = h
            outs.append(out)
        return [np.concatenate(outs, axis=2)]


PEERS = {
    "minigrad": Minigrad,
    "torch": Torch,
    "torch.compile": TorchCompiled,
    "jax": Jax,
    "onnxruntime": OnnxRuntime,
    "numpy": NumPy,
}


def peak_memory(call):
    """Bytes by which the process grew at its peak during a call, after what is free went back to
    the system (Linux)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)

    def read(field):
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")
    before = read("VmRSS")
    call()
    return read("VmHWM") - before


def serve(name, threads, pipe):
    """The worker process: answers requests until told to stop."""
    for variable in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "MINIGRAD_NUM_THREADS",
    ):
        os.environ[variable] = str(threads)
    try:
        peer = PEERS[name](threads)
        pipe.send(None)
    except ImportError as error:
        pipe.send(str(error))
        return
    import numpy as np

    while True:
        request, *arguments = pipe.recv()
        if request == "stop":
            return
        try:
            if request == "setup":
                answer = peer.setup(*arguments)
            elif request == "results":
                answer = [np.array(a) for a in getattr(peer, arguments[0])()]
            elif request == "memory":
                answer = peak_memory(getattr(peer, arguments[0]))
            else:
                call, repeats = getattr(peer, arguments[0]), arguments[1]
                call()  # as in a training loop: caches and threads are awake
                start = time.perf_counter()
                for _ in range(repeats):
                    call()
                answer = (time.perf_counter() - start) / repeats
        except Exception as error:  # a peer that cannot do a case is reported, not fatal
            answer = error
        pipe.send(answer)
