"""Time of calls on a few thousand values, where what surrounds the kernel counts."""

from . import bench_passes
from .common import SMALL, SerialPasses


class SmallFastbn(SerialPasses, bench_passes.Fastbn):
    shapes = SMALL


class SmallNumpy(bench_passes.Numpy):
    shapes = SMALL
