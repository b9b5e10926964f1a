"""Peak memory of a process that makes one training step and keeps y. Its inputs, Python and NumPy: `reference`."""

import numpy as np

import fastbn
from fastbn._bench import LAYOUTS as CHANNEL_AXIS
from fastbn._plain import Plain

from .common import DTYPES, LAYOUTS, SHAPES


class Memory:
    params = (LAYOUTS, DTYPES)
    param_names = ("layout", "dtype")

    def setup(self, layout, dtype):
        self.x, self.dy = np.ones((2, *SHAPES[layout]), dtype)
        self.axis = CHANNEL_AXIS[layout]
        self.gamma = np.ones(self.x.shape[self.axis], dtype)

    def peakmem_reference(self, *_):
        pass

    def peakmem_fastbn(self, *_):
        self.y, cache = fastbn.batch_norm(self.x, self.gamma, self.gamma, channel_axis=self.axis)
        fastbn.batch_norm_backward(self.dy, cache)

    def peakmem_fastbn_in_place(self, *_):
        self.y, cache = fastbn.batch_norm(self.x, self.gamma, self.gamma, channel_axis=self.axis)
        fastbn.batch_norm_backward(self.dy, cache, out=self.dy)

    def peakmem_numpy(self, *_):
        plain = Plain(self.x, self.dy, self.gamma, self.gamma, np.empty_like(self.x), self.axis)
        plain.forward()
        self.y, plain.out = plain.out, np.empty_like(plain.x)
        plain.backward()
