"""Tests share a browser's files and nothing else."""

import pytest
from conftest import forget

pytestmark = pytest.mark.page
ADDRESS = "http://localhost/"
KEPT = """navigator.permissions.query({name: 'clipboard-read'}).then((clipboard) => [
    localStorage.length, sessionStorage.length, document.cookie, clipboard.state, navigator.onLine,
])"""


def opened(profile):
    page = profile.new_page()
    page.route(ADDRESS, lambda route: route.fulfill(content_type="text/html", body=""))
    page.goto(ADDRESS)
    return page


def test_a_page_knows_nothing_of_the_ones_before_it(profile):
    page = opened(profile)
    new = page.evaluate(KEPT)
    page.evaluate(
        """localStorage.setItem('cartoon', 1);
        sessionStorage.setItem('cartoon', 1);
        document.cookie = 'cartoon=1; max-age=1000';"""
    )
    profile.grant_permissions(["clipboard-read"])
    profile.set_offline(True)
    assert page.evaluate(KEPT) == [1, 1, "cartoon=1", "granted", False]
    forget(profile, {page.url})
    assert opened(profile).evaluate(KEPT) == new == [0, 0, "", "prompt", True]
    forget(profile, {ADDRESS})
