"""What the tests in a browser share: a visit to the page, the list of tests, and running it."""

import os
import sys
from contextlib import contextmanager

from playwright.sync_api import expect, sync_playwright

from stub import Stub

TESTS = []
options = None
browser = None


def test(function):
    """Adds a test to the list."""
    TESTS.append(function)
    return function


class Visit:
    """A page of its own profile, at a server's `address` or with a server of its own."""

    def __init__(self, host="localhost", address=None, **settings):
        self.stub = None if address else Stub(options.unpacked)
        self.address = address or f"http://{host}:{self.stub.port}/"
        settings = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US", "color_scheme": "light", **settings}
        self.context = browser.new_context(accept_downloads=True, **settings)
        self.context.grant_permissions([])
        self.trouble = []
        self.context.add_init_script(
            "addEventListener('securitypolicyviolation', event =>"
            " console.error('policy: ' + event.violatedDirective + ' ' + event.blockedURI + ' ' + event.sample))"
        )
        self.context.on("request", self.requested)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.page.on("console", self.said)
        self.page.on("dialog", lambda dialog: self.trouble.append("a dialog of the browser"))
        self.page.set_default_timeout(15_000)
        self.expected = ()

    def requested(self, request):
        local = (self.address, "data:", "blob:")
        if not request.url.startswith(local):
            self.trouble.append(f"request to another origin: {request.url}")

    def said(self, message):
        if message.type in ("error", "warning"):
            self.trouble.append(f"console: {message.text}")

    def open(self):
        self.page.goto(self.address)
        expect(self.page.locator("#model")).to_contain_text("reference")
        return self.page

    def ask(self, text, wait=True):
        self.page.locator("#box").fill(text)
        self.page.keyboard.press("Enter")
        if wait:
            self.wait()

    def wait(self):
        """Waits for the end of the answers, and until it is drawn: that is done with the next frame."""
        expect(self.page.locator("#send")).to_be_visible(timeout=120_000)
        self.page.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")

    def check(self):
        # What a server refuses as another origin's, "null" among it, is never sent.
        assert not self.stub or self.stub.origins <= {self.address.rstrip("/")}, self.stub.origins
        unexpected = [line for line in self.trouble if not any(word in line for word in self.expected)]
        assert not unexpected, unexpected

    def close(self):
        self.context.close()
        if self.stub:
            self.stub.close()


@contextmanager
def visit(**settings):
    visited = Visit(**settings)
    try:
        yield visited
        visited.check()
    except Exception as error:
        raise AssertionError(f"{error!r} {visited.trouble}") from error
    finally:
        visited.close()


def answer(page):
    return page.locator(".message.assistant").last


def tab_to(page, selector, limit=40):
    """Reaches an element by the Tab key alone."""
    for _ in range(limit):
        if page.evaluate("selector => document.activeElement?.matches(selector) ?? false", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {selector}")


def run(given):
    """Runs the tests; ends the program with their names if any failed."""
    global browser, options
    options = given
    expect.set_options(timeout=20_000)
    failed = []
    with sync_playwright() as playwright:
        arguments = ["--host-resolver-rules=MAP board.test 127.0.0.1"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")
        browser = playwright.chromium.launch(executable_path=options.browser, args=arguments)
        for function in TESTS:
            if options.only not in function.__name__:
                continue
            try:
                function()
                print(f"ok {function.__name__}", flush=True)
            except Exception as error:
                failed.append(function.__name__)
                print(f"FAILED {function.__name__}: {error}", flush=True)
        browser.close()
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")
