"""The page of a report as PDF, printed by a browser that is installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge",
    "microsoft-edge", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)  # fmt: skip
SECONDS = 120  # that a browser may take
OPTIONS = (
    "--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-pdf-header-footer",
)  # fmt: skip


def require_browser() -> str:
    """The path of a browser that prints.

    Raises:
        RuntimeError: there is none.
    """
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise RuntimeError(
            "expected Chromium, Chrome or Edge, which print the page as PDF, found none; install "
            "one, or open report.html and print it"
        )
    return found


def printed(page: Path) -> bytes:
    """The PDF of a page.

    Args:
        page: path of the page.

    Raises:
        RuntimeError: there is no browser, or it could not print the page.
    """
    browser = require_browser()
    with tempfile.TemporaryDirectory(prefix="mcbn-pdf-") as folder:
        target = Path(folder) / "page.pdf"
        own = [f"--user-data-dir={folder}/profile", f"--print-to-pdf={target}"]
        if os.name == "posix" and os.geteuid() == 0:
            own.append("--no-sandbox")  # as root a browser starts in no other way
        command = [browser, *OPTIONS, *own, page.resolve().as_uri()]
        try:
            # The browser of this machine and our own page: no text of a user is among the words.
            done = subprocess.run(  # noqa: S603
                command, capture_output=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"expected {browser} to print {page} within {SECONDS} s, it did not; open the page "
                "and print it"
            ) from error
        if not target.is_file():
            said = done.stderr.decode(errors="replace").strip()[-200:]
            raise RuntimeError(
                f"expected {browser} to print {page}, it did not ({said}); open the page and print "
                "it"
            )
        return target.read_bytes()
