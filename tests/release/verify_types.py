"""How many of the public types pyright knows, of a wheel: `make types`.

A program, not a test: it takes some 40 CPU seconds. pyright looks for the package where the
`python` of PATH would import it; the wheel is laid out beside the packages that it needs, in an
environment of its own, so that an editable installation is not asked in its place.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

LEAST = 0.99
_ASKED = "--verifytypes", "sdegen", "--ignoreexternal", "--outputjson"


def completeness(wheel):
    """What pyright says of the wheel: the share of known types, and the names without."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "venv"
        venv.create(home)
        packages = next(home.glob("lib/python*/site-packages"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
        (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))
        path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [sys.executable, "-m", "pyright", *_ASKED],
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | {"PATH": path},
        )
    if not done.stdout.startswith("{"):  # its first use may ask a network for node
        said = (done.stderr or done.stdout)[-300:]
        sys.stdout.write(f"skipped: pyright did not run here: {said}\n")
        sys.exit(0)
    answer = json.loads(done.stdout)["typeCompleteness"]
    unknown = sorted(
        symbol["name"]
        for symbol in answer["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
    )
    return answer["completenessScore"], unknown


if __name__ == "__main__":
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    score, unknown = completeness(wheel)
    sys.stdout.write(f"{score:.2%} of the public types are known; {len(unknown)} are not\n")
    if score < LEAST:
        sys.stdout.write("\n".join(unknown))
        sys.exit(f"\nat least {LEAST:.0%} must be: write the types of these.")
