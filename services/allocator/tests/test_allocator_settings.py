"""What the allocator refuses to start with, and what it only remarks on."""

import pytest
from hami_allocator.settings import AllocatorSettings
from hami_kit.errors import SettingsError
from hami_kit.settings import load


def settings(**environ: str) -> AllocatorSettings:
    """Read the settings from an environment."""
    return load(AllocatorSettings, [], environ)


@pytest.mark.parametrize("policy", ["binpack", "spread", "numa", "mutex", "topology-aware", "mutex, binpack,numa"])
def test_policies_that_hami_knows_are_taken_silently(policy: str) -> None:
    """Chains too, with blanks as people write them."""
    assert [] == settings(HAMI_GPU_SCHEDULER_POLICY=policy, HAMI_NODE_SCHEDULER_POLICY="spread").remarks


def test_a_policy_that_nobody_knows_is_remarked_on() -> None:
    """HAMi compat: it means the default of its level; whoever set it hears so."""
    found = settings(HAMI_NODE_SCHEDULER_POLICY="best", HAMI_GPU_SCHEDULER_POLICY="mutex,best").remarks

    assert [
        'HAMI_NODE_SCHEDULER_POLICY: "best" is no policy, so binpack holds; write binpack or spread',
        'HAMI_GPU_SCHEDULER_POLICY: "best" of "mutex,best" is no policy and counts for nothing; write binpack, mutex, '
        "numa, spread, topology-aware, or a comma chain",
    ] == found


def test_a_selector_that_is_no_list_of_labels_is_refused() -> None:
    """The variable, its value and the way out."""
    assert {"gpu": "on", "zone": "a"} == settings(HAMI_NODE_LABEL_SELECTOR="gpu=on, zone=a,").selector
    for text in ("gpu", "=on", "gpu=on,zone"):
        with pytest.raises(SettingsError, match=f'HAMI_NODE_LABEL_SELECTOR: "{text}" is no list of labels'):
            _ = settings(HAMI_NODE_LABEL_SELECTOR=text).selector
