"""A page in a browser, with all that it says, loads and breaks."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OWN = ("file:", "data:", "blob:")
READY_MS = 30_000


@dataclass
class Opened:
    """A page, and what was heard of it."""

    page: object
    errors: list = field(default_factory=list)  # all of the console, and those that nothing caught
    requests: list = field(default_factory=list)  # other than for the file itself
    dialogs: list = field(default_factory=list)

    def quiet(self):
        """Whether nothing was heard."""
        return not (self.errors or self.requests or self.dialogs)

    def texts(self, selector):
        """Return the texts of all elements that a selector names."""
        return self.page.locator(selector).all_inner_texts()

    def drawn(self, selector):
        """Scroll a picture into sight and wait until it is drawn."""
        found = self.page.locator(selector)
        found.scroll_into_view_if_needed()
        found.locator(".main-svg").first.wait_for(state="attached", timeout=READY_MS)
        return found

    def traces(self, selector):
        """Return the data that plotly drew in a picture."""
        return self.page.locator(f"{selector} .js-plotly-plot").evaluate(
            "node => JSON.parse(JSON.stringify(node.data))"
        )

    def violations(self, rules=None):
        """Return what axe-core finds, in words; by default, by all its rules."""
        script = (resources.files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
        self.page.evaluate(script)
        only = {} if rules is None else {"runOnly": rules}
        found = self.page.evaluate(
            "options => axe.run(document, options).then(result => result.violations)",
            {"resultTypes": ["violations"], **only},
        )
        return [
            f"{v['id']} ({v['impact']}): {[n['html'][:120] for n in v['nodes'][:3]]}" for v in found
        ]


@contextmanager
def chromium():
    """Yield a browser; skip where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser, path, hash="", size=(1400, 1000), **options):
    """Open a file, and wait until what the script makes is there."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, accept_downloads=True, **options
    )
    page = context.new_page()
    made = Opened(page)

    def dismiss(dialog):
        made.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("console", lambda message: made.errors.append(message.text))
    page.on("pageerror", lambda error: made.errors.append(str(error)))
    page.on("dialog", dismiss)
    page.on("request", lambda r: None if r.url.startswith(OWN) else made.requests.append(r.url))
    page.goto(f"{path.absolute().as_uri()}{hash}")
    if options.get("java_script_enabled", True):
        page.wait_for_selector("html[data-ready]", state="attached", timeout=READY_MS)
    yield made
    context.close()
