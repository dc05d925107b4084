"""The wiring, read top to bottom: it is the allocator's architecture.

One rule: nothing is made anywhere else, and everything that runs has its parent here.
"""

import asyncio
import logging
import uuid
from contextlib import AsyncExitStack

from hami_kit.bus import Bus, BusSettings, connect
from hami_kit.clock import Clock, SystemClock
from hami_kit.kube import Kube
from hami_kit.kube.lease import Election
from hami_kit.kube.reflector import Reflector
from hami_kit.runner import Stop
from hami_kit.settings import load_device_config
from hami_kit.telemetry import Telemetry
from hami_kit.web import health_routes, serve as serve_web
from hami_model.objects import Node, Pod, ResourceQuota
from hami_model.policies import Policies
from hami_model.vendors import build

from hami_allocator.agents import Agents
from hami_allocator.announcer import Announcer
from hami_allocator.answers import Answers
from hami_allocator.desk import Desk
from hami_allocator.effects import Means
from hami_allocator.endpoints import listen_to_heartbeats, serve_reading
from hami_allocator.facts import Fact
from hami_allocator.fence import Term as TermMarks
from hami_allocator.fleet_metrics import FleetPage, OwnMetrics
from hami_allocator.leading import Office, Term
from hami_allocator.liveness import Hearing
from hami_allocator.lock_keeper import LockKeeper
from hami_allocator.node_locks import NodeLocks
from hami_allocator.nodes import Nodes
from hami_allocator.reconcile import Reconcile
from hami_allocator.retry import Backoff
from hami_allocator.settings import AllocatorSettings
from hami_allocator.takeover import Takeover
from hami_allocator.world import World
from hami_allocator.writer import Writer

log = logging.getLogger(__name__)
