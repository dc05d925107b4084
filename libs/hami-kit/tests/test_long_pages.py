"""Pages that are kept compressed and sent as gzip, or as text in pieces."""

import gzip

from hami_kit.pages import PIECE, Packed, Packer
from hypothesis import given
from hypothesis import strategies as st


def a_page(*texts: tuple[str, str]) -> Packed:
    packer = Packer()
    for section, text in texts:
        packer.add(section, text, head=f"# {section}\n")
    return packer.packed()


def test_sections_stand_together_whatever_the_order_of_writing() -> None:
    """Prometheus wants all lines of one metric in one place; a fleet is walked card by card."""
    page = a_page(("memory", "memory 1\n"), ("cores", "cores 1\n"), ("memory", "memory 2\n"))

    assert b"# memory\nmemory 1\nmemory 2\n# cores\ncores 1\n" == b"".join(page.texts())


@given(texts=st.lists(st.tuples(st.sampled_from("abc"), st.text())), more=st.binary())
def test_gzip_says_what_the_text_says(texts: list[tuple[str, str]], more: bytes) -> None:
    """One gzip member, right to its checksum, with what is added at the end."""
    page = a_page(*texts)

    assert b"".join(page.texts()) + more == gzip.decompress(page.gzip(more))


def test_a_long_page_is_small_and_comes_in_pieces() -> None:
    """Neither keeping nor sending it takes the memory of its text."""
    line = 'hami_gpu_shared_count{node="gpu-node-00001",device_uuid="GPU-1"} 2\n'
    page = a_page(*(("shared", line * 1000) for _ in range(100)))
    pieces = list(page.texts())

    assert page.size == sum(map(len, pieces)) > 6_000_000
    assert max(map(len, pieces)) <= PIECE
    assert len(page.gzip()) < page.size / 50


def test_a_page_without_text_is_no_text() -> None:
    """Services without a fleet show their own metrics alone."""
    assert b"own 1\n" == gzip.decompress(Packed().gzip(b"own 1\n"))
    assert [] == list(Packed().texts())
