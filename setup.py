"""Builds the extension modules; everything else about the package is in pyproject.toml.

fastbn/_kernels/<target>.pyx are one Cython source, compiled once per target with that target's flags;
`runtime` holds what is asked before a target is chosen. Which one runs is decided at import, on the user's
machine: the build asks what its compiler can make, never what its CPU can run.
"""

import os
import tempfile
from glob import glob
from pathlib import Path

import Cython
import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

KERNELS = "fastbn/_kernels/"
DIRECTIVES = dict.fromkeys(["boundscheck", "wraparound", "initializedcheck"], False)
DIRECTIVES |= {"language_level": 3, "cdivision": True, "freethreading_compatible": True}

# GCC and Clang. Same bits everywhere: no fused multiply-add, no other order of a sum. Without errno and
# traps a root or a comparison is one vector instruction.
COMMON = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"]
# GCC would unroll a loop over LANES (plan.pxi) before it vectorizes it, and then fail to vectorize it.
VECTORIZE = ["--param=max-completely-peel-times=8"]
TARGETS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mprefer-vector-width=512"],
}
X86_64 = "#ifndef __x86_64__\n#error not x86-64\n#endif\n#include <immintrin.h>\nint check(void) { return 0; }"
EMPTY = "int check(void) { return 0; }"
OPENMP = "#include <omp.h>\nint check(void) { return omp_get_max_threads() < 1; }"


class BuildExt(build_ext):
    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or True  # one compiler per core

    def build_extensions(self):
        gnu = self.compiler.compiler_type == "unix"
        lean = gnu and not self.debug  # Python's own CFLAGS may carry -g: modules many times as large
        openmp = self.openmp_flags("-fopenmp" if gnu else "/openmp")
        common = COMMON + ["-g0"] * lean if gnu else ["/O2", "/fp:precise"]
        common += VECTORIZE if gnu and self.accepts(EMPTY, VECTORIZE) else []
        strip = ["-Wl,--strip-all"] * (lean and self.plat_name.startswith("linux"))
        flags = {t: f for t, f in TARGETS.items() if not f or (gnu and self.accepts(X86_64, f))}
        print(f"fastbn: targets {', '.join(flags)}; OpenMP {'yes' if openmp else 'no'}", flush=True)

        flags["runtime"] = []
        self.extensions = [ext for ext in self.extensions if ext.name.rpartition(".")[2] in flags]
        for ext in self.extensions:
            ext.extra_compile_args = common + openmp + flags[ext.name.rpartition(".")[2]]
            ext.extra_link_args = openmp * gnu + strip
        self.generate_c()
        super().build_extensions()
        if not self.inplace:
            # `pip install . && python -m fastbn` imports the package of this folder, not the installed one:
            # the modules must lie here too. (Neither wheel nor sdist takes them from here.)
            self.copy_extensions_to_source()

    def generate_c(self):
        """C files in build/; all anew after a build with other flags, so that none of its objects stays."""
        environment = [os.environ.get(name) for name in ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "ARCHFLAGS")]
        used = [(ext.name, ext.extra_compile_args, ext.extra_link_args) for ext in self.extensions]
        record, text = Path("build/flags.txt"), repr((Cython.__version__, DIRECTIVES, environment, used))
        changed = not record.exists() or record.read_text() != text
        options = {"compiler_directives": DIRECTIVES, "build_dir": "build/cython", "force": changed}
        sources = {ext.name: ext.sources for ext in cythonize(self.extensions, **options)}
        for ext in self.extensions:
            ext.sources = sources[ext.name]
        record.write_text(text)

    def openmp_flags(self, flag):
        if os.environ.get("FASTBN_NO_OPENMP", "0") not in ("", "0"):
            return []
        if self.accepts(OPENMP, [flag]):
            return [flag]
        print(f"fastbn: the compiler has no OpenMP ({flag}; its message is above): building for one thread")
        return []

    def accepts(self, program, flags):
        """True if this build's compiler and linker, with CC, CFLAGS and LDFLAGS, make a library of the program."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "check.c")
            source.write_text(program + "\n")
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                self.compiler.link_shared_object(objects, str(Path(folder, "check.so")), extra_postargs=flags)
            except (CompileError, LinkError):
                return False
        return True


BUILD = {
    "include_dirs": [KERNELS, numpy.get_include()],
    "define_macros": [
        ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_1_25_API_VERSION"),  # the C API of NumPy 1.26, the oldest at run time
    ],
    "depends": ["setup.py", *sorted(glob(f"{KERNELS}*.p[yx][xi]") + glob(f"{KERNELS}*.h"))],
}
modules = [Extension(f"fastbn._kernels.{m}", [f"{KERNELS}{m}.pyx"], **BUILD) for m in [*TARGETS, "runtime"]]
setup(ext_modules=modules, cmdclass={"build_ext": BuildExt})
