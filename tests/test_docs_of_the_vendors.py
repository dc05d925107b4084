"""The page about the vendors says what their modules say."""

from hami_testkit.vendor_page import PAGE, page


def test_the_page_is_up_to_date() -> None:
    """Whoever adds or changes a vendor writes it anew."""
    assert page() == PAGE.read_text(), "docs/reference/vendors.md is out of date: run  make vendors"
