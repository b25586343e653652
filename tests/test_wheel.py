"""An installed wheel, without the checkout, has its prompts and runs `generate`."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_wheel_carries_the_model_and_runs(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    where = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    # Dependencies from this environment; its editable install of the checkout is not seen through a path file.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    code = (
        "import parallel_reason as p; from parallel_reason.prompts import load, names; problem = '22,26,31,53=27'; "
        "(t,) = p.ParallelLLM(engine='torch').generate(load('spawn_join').render(problem)); "
        "print(p.__file__, t.answer, *names())"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    file, answer, *prompts = done.stdout.split()
    assert file.startswith(str(tmp_path))
    assert answer.endswith("=27")
    assert prompts == sorted(path.stem for path in (ROOT / "prompts").glob("*.toml"))
