"""fastbn and what it is compared with: one class each, all on the same arrays (`fastbn._bench.Batch`).

`calls()` are the calls that are timed, by pass, with outputs that exist already wherever the package can write to
them; `fresh()` the same as users make them. A call returns y, or dx, dgamma and dbeta, in the package's own types, and
`arrays` turns them into NumPy arrays. `load` sets the number of threads and returns the version; it raises ImportError
where the package is not installed. A class raises Unsupported for a batch that it has no calls for.
"""

import numpy as np

import fastbn

EPS = 1e-5


class Unsupported(Exception):
    """Nothing to compare with for this batch."""


def geometry(batch):
    """The axes that are reduced, the shape of a vector that broadcasts over them, and how many values they hold."""
    axis = batch.axis % batch.x.ndim
    axes = tuple(i for i in range(batch.x.ndim) if i != axis)
    return axes, [-1 if i == axis else 1 for i in range(batch.x.ndim)], batch.x.size // batch.x.shape[axis]


class Fastbn:
    name = "fastbn"

    @staticmethod
    def load(threads):
        return f"fastbn {fastbn.__version__} ({fastbn.target()})"

    def __init__(self, batch, threads):
        self.batch, self.threads = batch, threads

    def fresh(self, out=None):
        batch, threads = self.batch, self.threads
        x, dy, gamma, beta = batch.x, batch.dy, batch.gamma, batch.beta
        options = {"eps": EPS, "channel_axis": batch.axis, "num_threads": threads, "out": out}
        _, cache = fastbn.batch_norm(x, gamma, beta, **options)

        def forward():
            return fastbn.batch_norm(x, gamma, beta, **options)[:1]

        def backward():
            return fastbn.batch_norm_backward(dy, cache, out=out, num_threads=threads)

        def inference():
            return (fastbn.batch_norm_inference(x, batch.mean, batch.var, gamma, beta, **options),)

        return {"forward": forward, "backward": backward, "inference": inference}

    def calls(self):
        return self.fresh(self.batch.out)

    def arrays(self, results):
        return results


class NumPy:
    """`calls` are those of `fastbn._plain`, which reuses arrays; `fresh` the formulas as one writes them down."""

    name = "NumPy"

    @staticmethod
    def load(threads):
        return f"NumPy {np.__version__}"

    def __init__(self, batch, threads):
        self.batch = batch

    def calls(self):
        batch, plain = self.batch, self.batch.plain
        plain.forward(EPS)  # backward takes x - mean from it

        def forward():
            plain.forward(EPS)
            return (batch.out,)

        def backward():
            dgamma, dbeta = plain.backward()
            return batch.out, dgamma, dbeta

        def inference():
            plain.inference(batch.mean, batch.var, EPS)
            return (batch.out,)

        return {"forward": forward, "backward": backward, "inference": inference}

    def fresh(self):
        batch, x, dy = self.batch, self.batch.x, self.batch.dy
        axes, vector, count = geometry(batch)
        gamma, beta, mean, var = (v.reshape(vector) for v in (batch.gamma, batch.beta, batch.mean, batch.var))
        mu, sigma = x.mean(axes, keepdims=True), np.sqrt(x.var(axes, keepdims=True) + np.float32(EPS))

        def forward():
            mu, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
            return (gamma * (x - mu) / np.sqrt(var + np.float32(EPS)) + beta,)

        def backward():
            xhat = (x - mu) / sigma
            dbeta, dgamma = dy.sum(axes, keepdims=True), (dy * xhat).sum(axes, keepdims=True)
            return gamma / sigma * (dy - dbeta / count - xhat * (dgamma / count)), dgamma, dbeta

        def inference():
            return (gamma * (x - mean) / np.sqrt(var + np.float32(EPS)) + beta,)

        return {"forward": forward, "backward": backward, "inference": inference}

    def arrays(self, results):
        return results
