"""What the outside reads."""

from hami_allocator.facts import MESSAGE_LIMIT, Fact, cloud_event, placed_message, unplaced_messages


def test_a_placed_pod_is_told_in_hamis_words() -> None:
    """Nodes sorted, scores with two decimals."""
    text = placed_message("n1", 3, 2, {"n2": 7.5, "n1": 15.004})

    assert "find fit node(n1), 1 nodes not fit, 2 nodes fit(n1:15.00,n2:7.50)" == text


def test_a_message_ends_where_an_event_must() -> None:
    """Five thousand nodes do not fit into one Event."""
    text = placed_message("node-0", 5000, 5000, {f"node-{i}": 1.0 for i in range(5000)})

    assert len(text) <= MESSAGE_LIMIT
    assert text.endswith(",…)")


def test_an_unplaced_pod_is_told_by_reason_and_in_sum() -> None:
    """One message for each reason, then the summary."""
    reasons = {"1/2 CardCordoned, 1/2 CardInsufficientMemory": [1], "2/2 CardInsufficientMemory": [0], "unknown": [2]}
    texts = unplaced_messages(["n2", "n1", "n3"], reasons)

    assert (
        "1 nodes CardCordoned(n1)",
        "2 nodes CardInsufficientMemory(n1,n2)",
        "no available node, 3 nodes do not meet",
    ) == texts


def test_an_event_is_named_for_good() -> None:
    """Source and number: the same fact twice is told apart from two facts."""
    event = cloud_event(Fact(kind="bound", subject="team-a/p", uid="u"), number=7, source="a1", now=0.5)

    assert ("a1-7", "io.hami.bound.v1", "1970-01-01T00:00:00.500Z") == (event.id, event.type, event.time)
    assert {"uid": "u"} == event.data
