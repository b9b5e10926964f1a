"""Time of `import fastbn` in a new interpreter; what it takes beyond NumPy is its own."""


def timeraw_fastbn():
    return "import fastbn"


def timeraw_numpy():
    return "import numpy"
