"""The documentation builds as a site without a warning, and every folder of the package has a page of its API."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert built.returncode == 0, built.stderr
    assert {p.name for p in tmp_path.glob("*.html")} == {p.with_suffix(".html").name for p in (ROOT / "docs").glob("*.md")} | {
        "404.html"
    }
    folders = {p.parent.name for p in (ROOT / "ove").glob("*/__init__.py")} - {"config"}
    for folder in folders:
        page = (tmp_path / "api" / f"{folder}.html").read_text()
        for module in (ROOT / "ove" / folder).glob("[a-z]*.py"):
            assert f'id="ove.{folder}.{module.stem}' in page, f"{module} is not on the page of ove.{folder}"
    assert 'id="ove.config.VideoConfig.n_frames"' in (tmp_path / "api" / "records.html").read_text()
