"""Shapes (with the channel axis) on both sides of every threshold of the kernels; see fastbn/_kernels/plan.pxi."""

SMALL = {
    "two values": ((2, 3), 1),
    "matrix, rows joined": ((37, 5), 1),
    "matrix, wide rows": ((19, 300), 1),
    "matrix, odd width": ((40, 513), 1),
    "matrix, more than one group of columns": ((7, 2050), 1),
    "one column": ((1003, 1), 1),
    "three columns": ((515, 3), 1),
    "one row, images": ((1, 4, 9, 9), 1),
    "images 7x7": ((6, 40, 7, 7), 1),
    "images, longest columns": ((5, 3, 255), 1),
    "images, shortest runs": ((5, 3, 256), 1),
    "images, odd runs": ((3, 5, 17, 19), 1),
    "channels last": ((4, 6, 5, 17), -1),
    "channels first": ((11, 4, 6), 0),
    "five dimensions": ((2, 3, 4, 5, 6), 2),
}

LARGE = {
    "runs in segments": ((2, 2, 140001), 1),
    "runs in blocks of rows": ((300, 2, 700), 1),
    "groups of runs": ((16, 40, 20, 20), 1),
    "groups of columns": ((40, 300, 7, 7), 1),
    "blocks of columns": ((3000, 65), 1),
    "blocks of joined rows": ((70001, 3), 1),
    "channels last, images": ((8, 32, 32, 24), -1),
    "streamed runs": ((8, 33, 65, 67), 1),
    "streamed columns": ((130, 260, 6, 6), 1),
    "streamed channels last": ((5200, 203), -1),
    "streamed joined rows": ((400001, 3), 1),
}
ALL = SMALL | LARGE
