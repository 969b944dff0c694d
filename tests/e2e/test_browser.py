"""A person opens the UI in a browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.e2e.conftest import Site
from tests.real import program

_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program("chromium", "Debian's chromium"), args=list(_FLAGS)
        )
        yield browser.new_page(viewport={"width": 1600, "height": 1000})
        browser.close()


@pytest.mark.real
def test_the_lineage_page_shows_the_groups(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/asset-groups")
    expect(page).to_have_title("Global asset lineage", timeout=90_000)
    for group in ("carbon", "lake", "ops", "report"):
        page.get_by_text(group, exact=True).first.wait_for(timeout=90_000)


@pytest.mark.real
def test_an_asset_page_tells_a_stranger_what_it_is(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/assets/carbon/emissions_hourly?view=overview")
    page.get_by_text("Operational and embodied emissions of every service").first.wait_for(timeout=90_000)
    page.get_by_text("sustainability").first.wait_for(timeout=90_000)
