"""Our answers about NVIDIA cards where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

_ALLOCATED = "hami.io/vgpu-devices-allocated"
_PARTS = "hami.io/vgpu-mig-allocations"
_BESIDE_EACH_OTHER = (
    '[{"containerIndex":0,"deviceIndex":0,"gpuUUID":"GPU-node-1-0","profile":"3g.20gb","placement":{"start":4,"size":4}},'
    '{"containerIndex":1,"deviceIndex":0,"gpuUUID":"GPU-node-1-0","profile":"1g.5gb","placement":{"start":3,"size":1}}]'
)
_SCHEDULER = {"/spec/schedulerName": "hami-scheduler"}
_WHOLE_CARD = {"/spec/containers/0/resources/limits/nvidia.com~1gpucores": "100"}
_TOO_MUCH = "nvidia.com/gpumem 16Gi in container c0 is too much: nvidia.com/gpumem counts MiB: write 16384"

ANSWERS = Answers(
    placed={
        "positions: [none, gpu]": {_ALLOCATED: ";GPU-node-1-1,NVIDIA,3000,30:;"},
        "positions: [gpu, none, gpu]": {_ALLOCATED: "GPU-node-1-1,NVIDIA,1000,10:;;GPU-node-1-0,NVIDIA,2000,10:;"},
        "positions: [init none, gpu]": {_ALLOCATED: ";GPU-node-1-1,NVIDIA,3000,30:;"},
        "positions: usage of an app container filed as init disappears when init containers end": {
            _ALLOCATED: ";GPU-node-1-0,NVIDIA,40960,100:;"
        },
        "restartable init container (sidecar)": {"node-1": "1/1 CardInsufficientMemory"},
        "topology-aware with numa-bind keeps only the last NUMA group": {
            _ALLOCATED: "GPU-node-1-3,NVIDIA,24564,100:GPU-node-1-2,NVIDIA,24564,100:;"
        },
        "MIG: init container and app container share a card": {_PARTS: _BESIDE_EACH_OTHER},
        "MIG: whole card": {_ALLOCATED: "GPU-node-1-0,NVIDIA,40192,100:;"},
        "a failed bind keeps its reservation": {_ALLOCATED: "GPU-node-1-0,NVIDIA,22107,1:;"},
        "suffixed memory is not read": {"error": _TOO_MUCH},
        "sixteen cards": {
            _ALLOCATED: "".join(f"GPU-node-1-{at},NVIDIA,2000,20:" for at in (11, 10, 9, 8, 7, 6, 5, 4)) + ";"
        },
    },
    placed_alike=frozenset(
        {
            "only the init container asks",  # the node lock that HAMi leaves out is the allocator's
            # at admission, which these steps have behind them:
            "config: defaultMemory alone makes a bare card exclusive",
        }
    ),
    admitted={
        "percentage 0": {**_WHOLE_CARD, **_SCHEDULER},
        "priority without a card": {},
        "count zero": {},
        "requests only, count": {},
        "runtimeClassName, core policy, default count": {
            "/spec/containers/0/env/0/name": "GPU_CORE_UTILIZATION_POLICY",
            "/spec/containers/0/env/0/value": "force",
            "/spec/containers/0/resources/limits/nvidia.com~1gpu": "2",
            "/spec/containers/1/env/0/name": "NVIDIA_VISIBLE_DEVICES",
            "/spec/containers/1/env/0/value": "none",
            "/spec/runtimeClassName": "nvidia",
            **_SCHEDULER,
        },
        "overwriteEnv without devices": {
            "/spec/containers/0/env/0/name": "NVIDIA_VISIBLE_DEVICES",
            "/spec/containers/0/env/0/value": "none",
        },
        "core policy on a container that has it already": {
            "/spec/containers/0/env/0/value": "force",
            "/spec/runtimeClassName": "nvidia",
            **_SCHEDULER,
        },
        "quota: percentage is not counted": _SCHEDULER,
    },
    denied={
        "percentage with a fraction": (500, "invalid nvidia.com/gpumem-percentage value 500m in container c0"),
        "memory 16Gi": (403, _TOO_MUCH),
    },
)
