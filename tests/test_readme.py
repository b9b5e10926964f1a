"""What the README says is what happens: its commands, its examples and what they print, its links."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastbn
from fastbn import config, functional, layers, statistics

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=280, cwd=ROOT, **options
    )


def test_the_example_is_quickstart_and_prints_what_is_shown():
    source = (ROOT / "examples/quickstart.py").read_text()
    shown = source[source.index("import numpy") :]
    assert shown in blocks("python")
    result = run("examples/quickstart.py")
    assert result.returncode == 0, result.stderr
    assert result.stdout in blocks("text")


def test_every_python_block_runs():
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("module", [functional, config, layers, statistics], ids=lambda m: m.__name__)
def test_examples_of_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert failed == 0
    assert tried > 0


def test_every_public_function_has_an_example():
    for name in ("batch_norm", "batch_norm_backward", "batch_norm_inference", "moments", "num_threads"):
        assert ">>> " in getattr(fastbn, name).__doc__
    for name in ("BatchNorm", "Moments", "RunningStats", "get_num_threads", "set_num_threads", "show_config", "target"):
        assert ">>> " in getattr(fastbn, name).__doc__


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_digits_train_with_batch_norm_and_not_without(tmp_path):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    picture = tmp_path / "curves.png"
    result = run("examples/train_digits.py", "--out", str(picture))
    assert result.returncode == 0, result.stdout + result.stderr
    assert picture.stat().st_size > 10_000
