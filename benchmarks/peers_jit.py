"""JAX and Numba. See peers.py."""

import numpy as np

from benchmarks.peers import EPS, geometry


class Jax:
    """Jitted; the last output is donated, so that XLA writes the next one to the same memory."""

    name = "JAX"
    passes = ("forward", "backward", "inference")

    @staticmethod
    def load(threads):
        import jax

        jax.config.update("jax_platforms", "cpu")
        return f"JAX {jax.__version__}"

    def __init__(self, batch, threads):
        import jax
        import jax.numpy as jnp

        axes, vector, count = geometry(batch)
        x, dy = jnp.asarray(batch.x), jnp.asarray(batch.dy)
        vectors = (batch.gamma, batch.beta, batch.mean, batch.var)
        gamma, beta, mean, var = (jnp.asarray(v.reshape(vector)) for v in vectors)

        def forward(x, gamma, beta):
            mu, v = self.moments(x, axes)
            invstd = jax.lax.rsqrt(v + EPS)
            return (x - mu) * (gamma * invstd) + beta, mu, invstd

        def backward(dy, x, gamma, mu, invstd):
            xhat = (x - mu) * invstd
            dbeta, dgamma = dy.sum(axes, keepdims=True), (dy * xhat).sum(axes, keepdims=True)
            return gamma * invstd * (dy - dbeta / count - xhat * (dgamma / count)), dgamma, dbeta

        def inference(x, mean, var, gamma, beta):
            return ((x - mean) * (gamma * jax.lax.rsqrt(var + EPS)) + beta,)

        _, mu, invstd = jax.jit(forward)(x, gamma, beta)
        self.functions = {
            "forward": (forward, (x, gamma, beta)),
            "backward": (backward, (dy, x, gamma, mu, invstd)),
            "inference": (inference, (x, mean, var, gamma, beta)),
        }

    def calls(self):
        return {name: self.reusing(*self.functions[name]) for name in self.passes}

    def fresh(self):
        return {name: self.allocating(*self.functions[name]) for name in self.passes}

    @staticmethod
    def moments(x, axes):
        return x.mean(axes, keepdims=True), x.var(axes, keepdims=True)

    @staticmethod
    def reusing(function, inputs):
        import jax
        import jax.numpy as jnp

        run = jax.jit(lambda out, *inputs: function(*inputs), donate_argnums=0, keep_unused=True)
        out = jnp.zeros_like(inputs[0])

        def call():
            nonlocal out
            results = run(out, *inputs)
            out = results[0]
            out.block_until_ready()
            return results

        return call

    @staticmethod
    def allocating(function, inputs):
        import jax

        run = jax.jit(function)

        def call():
            results = run(*inputs)
            results[0].block_until_ready()
            return results

        return call

    def arrays(self, results):
        return [np.asarray(a) for a in results]


class JaxOneSweep(Jax):
    """The variance as E[x^2] - E[x]^2, as Flax takes it: one sweep less, and wrong where |mean| is large."""

    name = "JAX, E[x²]"
    passes = ("forward",)

    @staticmethod
    def moments(x, axes):
        mean = x.mean(axes, keepdims=True)
        return mean, (x * x).mean(axes, keepdims=True) - mean * mean


class Numba:
    """The kernels of numba_kernels.py."""

    name = "Numba"

    @staticmethod
    def load(threads):
        import numba

        numba.set_num_threads(threads)
        return f"Numba {numba.__version__}"

    def __init__(self, batch, threads):
        self.batch = batch

    def calls(self):
        from benchmarks.numba_kernels import kernels

        batch = self.batch
        last = batch.axis == -1 or batch.x.ndim == 2
        shape = (-1, batch.x.shape[-1]) if last else (*batch.x.shape[:2], -1)
        x, dy, out = (a.reshape(shape) for a in (batch.x, batch.dy, batch.out))
        gamma, beta, mean, var = batch.gamma, batch.beta, batch.mean, batch.var
        mu, invstd, dgamma, dbeta = np.zeros((4, gamma.size), np.float32)
        run_forward, run_backward, run_inference = kernels(last, x.size)

        def forward():
            run_forward(x, gamma, beta, EPS, out, mu, invstd)
            return (batch.out,)

        def backward():
            run_backward(dy, x, gamma, mu, invstd, out, dgamma, dbeta)
            return batch.out, dgamma, dbeta

        def inference():
            run_inference(x, mean, var, gamma, beta, EPS, out)
            return (batch.out,)

        forward()  # backward takes mu and invstd from it
        return {"forward": forward, "backward": backward, "inference": inference}

    def arrays(self, results):
        return results
