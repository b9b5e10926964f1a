"""Time of each pass over batches that no core's cache holds, and of the same in NumPy."""

from .common import Passes, SerialPasses


class Fastbn(Passes):
    def time_forward(self, *_):
        self.batch.forward()

    def time_backward(self, *_):
        self.batch.backward()

    def time_inference(self, *_):
        self.batch.inference()

    def time_moments(self, *_):
        self.batch.moments()


class Numpy(SerialPasses):
    def time_forward(self, *_):
        self.plain.forward()

    def time_backward(self, *_):
        self.plain.backward()

    def time_inference(self, *_):
        self.batch.plain_inference()

    def time_moments(self, *_):
        self.plain.moments()
