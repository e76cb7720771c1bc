"""The documentation builds as a site without a warning, and its API pages name every module."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))  # and a page for addresses that do not exist


def test_api_pages_name_every_module() -> None:
    named = re.findall(r"^::: (\S+)$", "\n".join(p.read_text() for p in (ROOT / "docs" / "api").glob("*.md")), re.MULTILINE)
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for p in (ROOT / "ove").rglob("*.py")}
    assert sorted(named) == sorted(name for name in modules if not name.endswith("__init__"))
