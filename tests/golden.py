"""Makes the golden recording anew: ``python -m tests.golden``. For when decisions are meant to be others.

A real run over the clip of the woman, every third of its frames. It holds no picture, no
crop and no embedding: boxes, landmarks, probabilities, and what was decided.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from common import config as configuration
from common import media
from tests.analysing import clip
from tests.conftest import ROOT, free_ports, stage_environment
from tests.people import own_data_dir

GOLDEN = ROOT / "tests" / "recordings" / "woman.mien-recording"


def main() -> int:
    """Record, and put the file in its place."""
    with tempfile.TemporaryDirectory(prefix="mien") as folder:
        place = Path(folder)
        short = clip(media.sample("woman.mp4"), place / "short.mp4", "-vf", "fps=8", "-t", "14")
        news_in, news_out, previews = (f"tcp://127.0.0.1:{port}" for port in free_ports(3))
        config = configuration.load(
            overrides={
                "run_dir": place / "run",
                "cameras": {"cam0": {"source": str(short)}},
                "endpoints": {"news_in": news_in, "news_out": news_out, "previews": previews},
                "storage": {"data_dir": own_data_dir(place / "data")},
                "dashboard": {"enabled": False},
                "pipeline": {"first_track": 1},
                "every_frame": True,
                "identity": {"intervals_s": [0.5, 1.0]},
            },
            environment={},
        )
        configuration.save(config, place / "config.json")
        made = place / "made"
        command = [sys.executable, str(ROOT / "launch.py"), "--headless", "--config", str(place / "config.json")]
        subprocess.run([*command, "--record", str(made)], env=stage_environment(), check=True, timeout=400)
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_bytes(made.read_bytes())
    print(f"{GOLDEN.relative_to(ROOT)}: {GOLDEN.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
