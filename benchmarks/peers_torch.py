"""PyTorch, and oneDNN as PyTorch carries it. See peers.py."""

import re

from benchmarks.peers import EPS, Unsupported

ALL = [True, True, True]  # dx, dgamma and dbeta


class PyTorch:
    """Through `torch.native_batch_norm`; (N, H, W, C) memory as a tensor (N, C, H, W) in channels_last.

    The backward operator returns new tensors: its `out=` overload is the same call with a copy at the end.
    """

    name = "PyTorch"

    @staticmethod
    def load(threads):
        import torch

        torch.set_num_threads(threads)
        return f"PyTorch {torch.__version__}"

    def __init__(self, batch, threads):
        import torch

        self.last = batch.x.ndim == 4 and batch.axis == -1
        self.batches = [self.tensor(array) for array in (batch.x, batch.dy, batch.out)]
        self.vectors = [torch.from_numpy(array) for array in (batch.gamma, batch.beta, batch.mean, batch.var)]

    def calls(self):
        import torch

        (x, dy, out), (gamma, beta, mean, var) = self.batches, self.vectors
        saved, unused = (torch.empty_like(gamma), torch.empty_like(gamma)), (torch.empty(0), torch.empty(0))
        training, backwards = torch.native_batch_norm, torch.ops.aten.native_batch_norm_backward.default

        def forward():
            return training(x, gamma, beta, None, None, True, 0.1, EPS, out=(out, *saved))[:1]

        def backward():
            return backwards(dy, x, gamma, None, None, *saved, True, EPS, ALL)

        def inference():
            return training(x, gamma, beta, mean, var, False, 0.1, EPS, out=(out, *unused))[:1]

        forward()  # backward takes `saved` from it
        return {"forward": forward, "backward": backward, "inference": inference}

    def fresh(self):
        import torch

        (x, dy, _), (gamma, beta, mean, var) = self.batches, self.vectors
        batch_norm = torch.nn.functional.batch_norm
        inputs = [tensor.detach().requires_grad_() for tensor in (x, gamma, beta)]

        def forward():
            return (batch_norm(inputs[0], None, None, *inputs[1:], training=True, eps=EPS),)

        def inference():
            return (batch_norm(x, mean, var, gamma, beta, training=False, eps=EPS),)

        (y,) = forward()
        return {
            "forward": forward,
            "backward": lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True),
            "inference": inference,
        }

    def tensor(self, array):
        import torch

        tensor = torch.from_numpy(array)
        return tensor.permute(0, 3, 1, 2) if self.last else tensor

    def arrays(self, results):
        first, *others = (tensor.detach() for tensor in results)
        return [(first.permute(0, 2, 3, 1) if self.last else first).numpy(), *(t.numpy() for t in others)]


class OneDnn:
    """oneDNN inside PyTorch, on maps in the blocked layout that its convolutions hand over.

    A convolution with one filter of weight 1 per channel brings the batch into that layout, untimed.
    """

    name = "oneDNN (blocked)"

    @staticmethod
    def load(threads):
        import torch

        found = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
        if found is None:
            raise ImportError("PyTorch without oneDNN")
        return f"oneDNN {found[1]} (blocked; the one inside PyTorch)"

    def __init__(self, batch, threads):
        import torch

        if batch.x.ndim != 4 or batch.axis != 1 or batch.x.shape[1] % 16:
            raise Unsupported
        self.batches = self.blocked(batch.x), self.blocked(batch.dy)
        self.vectors = [torch.from_numpy(array) for array in (batch.gamma, batch.beta, batch.mean, batch.var)]

    def calls(self):
        import torch

        (x, dy), (gamma, beta, mean, var) = self.batches, self.vectors
        training, backwards = torch.native_batch_norm, torch.ops.aten.native_batch_norm_backward.default
        _, *saved = training(x, gamma, beta, None, None, True, 0.1, EPS)
        return {
            "forward": lambda: training(x, gamma, beta, None, None, True, 0.1, EPS)[:1],
            "backward": lambda: backwards(dy, x, gamma, None, None, *saved, True, EPS, ALL),
            "inference": lambda: training(x, gamma, beta, mean, var, False, 0.1, EPS)[:1],
        }

    @staticmethod
    def blocked(array):
        import torch

        ones = torch.ones(array.shape[1], 1, 1, 1).to_mkldnn()
        plain = torch.from_numpy(array)
        with torch.no_grad():
            found = torch.nn.functional.conv2d(plain.to_mkldnn(), ones, groups=array.shape[1])
        if not torch.equal(found.to_dense(), plain):
            raise RuntimeError("a convolution with ones changed its input")
        return found

    def arrays(self, results):
        return [(t.to_dense() if t.is_mkldnn else t).numpy() for t in results]
