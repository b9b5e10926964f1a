"""Figures that compare machines better than milliseconds do. Lower is better in all of them."""

from fastbn._bench import best

from .common import Passes

SECONDS = 0.5  # of timing for one figure


class Copies(Passes):
    """Time of a pass, in times of a streaming copy of what it must at least read and write."""

    unit = "copies"

    def track_forward(self, *_):
        return self.ratio(self.batch.forward, self.batch.copy)

    def track_backward(self, *_):
        return self.ratio(self.batch.backward, self.batch.add)

    def track_inference(self, *_):
        return self.ratio(self.batch.inference, self.batch.copy)

    def ratio(self, ours, copy):
        seconds, copying = best([ours, copy], SECONDS)
        return round(seconds / copying, 3)


class PerValue(Passes):
    """Time of a pass by the number of values in x."""

    unit = "ns"

    def track_forward(self, *_):
        return self.nanoseconds(self.batch.forward)

    def track_backward(self, *_):
        return self.nanoseconds(self.batch.backward)

    def track_inference(self, *_):
        return self.nanoseconds(self.batch.inference)

    def track_moments(self, *_):
        return self.nanoseconds(self.batch.moments)

    def nanoseconds(self, call):
        return round(best([call], SECONDS)[0] * 1e9 / self.batch.x.size, 4)
