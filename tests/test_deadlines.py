"""The deadlines are a chain: whoever asks waits longer than whoever answers, all the way."""

from pathlib import Path
from typing import Any

import yaml
from hami_allocator import leading, process
from hami_allocator.effects import LOCK_RESERVE
from hami_allocator.settings import AllocatorSettings
from hami_extender.app import BIND_GRACE, FILTER_DEADLINE
from hami_extender.settings import ExtenderSettings
from hami_kit import runner
from hami_kit.bus import BusSettings
from hami_kit.kube.client import LEASE_TIMEOUT
from hami_kit.kube.lease import Terms
from hami_kit.setting_values import read_duration
from hami_testkit.stack import scheduler_config
from hami_webhook.app import QUOTA_DEADLINE

GUIDE = (Path(__file__).parents[1] / "docs" / "how-to" / "run-the-services.md").read_text()
TERMS = Terms()
STOPPED_BY_KUBELET = 20.0
"""Seconds before SIGKILL that the guide asks for."""


def documents() -> list[dict[str, Any]]:
    """Return the guide's manifests."""
    blocks = GUIDE.split("```yaml\n")[1:]
    return [found for block in blocks for found in yaml.safe_load_all(block.partition("```")[0]) if found]


def http_timeouts() -> list[float]:
    """Return how long kube-scheduler waits, as the guide says and as the demo is set up."""
    configs = [d for d in documents() if d.get("kind") == "KubeSchedulerConfiguration"]
    configs.append(scheduler_config("http://127.0.0.1:1"))
    return [read_duration(extender["httpTimeout"]) for config in configs for extender in config["extenders"]]


def webhook_timeouts() -> list[float]:
    """Return how long the API server waits for the webhook, as the guide says."""
    configs = [d for d in documents() if d.get("kind") == "MutatingWebhookConfiguration"]
    return [float(hook["timeoutSeconds"]) for config in configs for hook in config["webhooks"]]


def test_a_bind_is_answered_before_whoever_asks_gives_up() -> None:
    """Lock, Binding, allocator, extender, kube-scheduler: each under the next."""
    allocator, extender = AllocatorSettings().bind_timeout, ExtenderSettings().bind_timeout

    assert allocator == extender
    assert 0 < allocator - LOCK_RESERVE < allocator < extender + BIND_GRACE
    assert len(http_timeouts()) == 2
    assert all(extender + BIND_GRACE < waited for waited in http_timeouts())


def test_a_filter_is_answered_long_before_the_scheduler_gives_up() -> None:
    """It is serial there: a filter that nobody answers costs two seconds, not thirty."""
    assert all(2 >= FILTER_DEADLINE < waited for waited in http_timeouts())


def test_the_quota_question_ends_before_the_webhook_is_given_up() -> None:
    """A pod is admitted with a warning rather than refused by a time-out."""
    assert len(webhook_timeouts()) == 1
    assert all(QUOTA_DEADLINE < waited for waited in webhook_timeouts())


def test_a_holder_gives_up_its_lease_before_others_take_it_and_others_within_fifteen_seconds() -> None:
    """A renewal that hangs, and one more, fit into the time in which the holder believes."""
    believed = TERMS.duration - TERMS.margin

    assert TERMS.renew_every + LEASE_TIMEOUT < believed < TERMS.duration
    assert TERMS.duration + TERMS.look_every <= 11


def test_a_clean_stop_fits_into_what_it_is_given() -> None:
    """Writes under way, then the Lease, then the process: 3 s for the next leader, 20 s before SIGKILL."""
    assert leading.FINISH + TERMS.look_every <= 3
    assert leading.FINISH + 2 * LEASE_TIMEOUT < runner.GRACE
    assert runner.GRACE + runner.LAST_GRACE < STOPPED_BY_KUBELET
    assert f"Give it {STOPPED_BY_KUBELET:g} s before SIGKILL" in GUIDE


def test_a_leader_without_nats_is_followed_before_its_own_view_would_do_it() -> None:
    """Five seconds, counted from the last pong: pings come more often."""
    assert BusSettings().ping_interval < process.CUT_OFF <= 5
    assert process.CUT_OFF < process.OUT_OF_SIGHT
