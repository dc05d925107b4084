"""The device config of HAMi's chart, unchanged values throughout (tested against the rendered file)."""

_GIB = 1024


def _names(prefix: str, count: str, memory: str = "", cores: str = "") -> dict[str, object]:
    keys = {"resourceCountName": count, "resourceMemoryName": memory, "resourceCoreName": cores}
    return {key: f"{prefix}/{name}" for key, name in keys.items() if name}


def _iluvatar(chip: str) -> dict[str, object]:
    return {
        "chipName": chip,
        "commonWord": chip,
        **_names("iluvatar.ai", f"{chip}-vgpu", f"{chip}.vMem", f"{chip}.vCore"),
    }


def _template(name: str, memory: int, ai_core: int, ai_cpu: int = 0) -> dict[str, object]:
    return {"name": name, "memory": memory, "aiCore": ai_core, "aiCPU": ai_cpu}


_SIXTEENTHS = (_template("vir02", 2184, 2), _template("vir04", 4369, 4), _template("vir08", 8738, 8),
    _template("vir16", 17476, 16))  # fmt: skip
_OF_910B2 = (_template("vir03_1c_8g", 8 * _GIB, 3, 1), _template("vir06_1c_16g", 16 * _GIB, 6, 1),
    _template("vir12_3c_32g", 32 * _GIB, 12, 3))  # fmt: skip
_OF_64_GIB = (_template("vir05_1c_16g", 16 * _GIB, 5, 1), _template("vir10_3c_32g", 32 * _GIB, 10, 3))
_OF_32_GIB = (_template("vir05_1c_8g", 8 * _GIB, 5, 1), _template("vir10_3c_16g", 16 * _GIB, 10, 3))
_OF_310P = (_template("vir01", 3072, 1, 1), _template("vir02", 6144, 2, 2), _template("vir04", 12288, 4, 4))

_CHIPS = (
    # chip name, common word, MiB for pods, MiB of the card, factor, AI cores, AI CPUs, templates
    ("910A", "Ascend910A", 32 * _GIB, 32 * _GIB, 1, 30, 0, _SIXTEENTHS),
    ("910B2", "Ascend910B2", 64 * _GIB, 64 * _GIB, 1, 24, 6, _OF_910B2),
    ("910B3", "Ascend910B3", 64 * _GIB, 64 * _GIB, 1, 20, 7, _OF_64_GIB),
    ("910B4-1", "Ascend910B4-1", 64 * _GIB, 64 * _GIB, 1, 20, 7, _OF_64_GIB),
    ("910B4", "Ascend910B4", 32 * _GIB, 32 * _GIB, 1, 20, 7, _OF_32_GIB),
    ("310P3", "Ascend310P", 21527, 24 * _GIB, 1, 8, 7, _OF_310P),
    ("Ascend910", "Ascend910C", 64 * _GIB, 64 * _GIB, 0, 20, 7, _OF_64_GIB),
)


def _chip(row: tuple[str, str, int, int, int, int, int, tuple[dict[str, object], ...]]) -> dict[str, object]:
    name, word, allocatable, capacity, factor, ai_core, ai_cpu, templates = row
    return {
        "chipName": name,
        "commonWord": word,
        "resourceName": f"huawei.com/{word}",
        "resourceMemoryName": f"huawei.com/{word}-memory",
        "resourceCoreName": f"huawei.com/{word}-core",
        "memoryAllocatable": allocatable,
        "memoryCapacity": capacity,
        "memoryFactor": factor,
        "aiCore": ai_core,
        "aiCPU": ai_cpu,
        "superPod": word == "Ascend910C",
        "templates": templates,
    }


_MIG = (
    (("A30",), "1g.6gb 2g.12gb 4g.24gb"),
    (("A100-SXM4-40GB", "A100-40GB-PCIe", "A100-PCIE-40GB"), "1g.5gb 2g.10gb 3g.20gb 7g.40gb"),
    (("A100-SXM4-80GB", "A100-80GB-PCIe", "A100-PCIE-80GB"), "1g.10gb 2g.20gb 3g.40gb 7g.79gb"),
    (("H100-PCIE-80GB", "H100-SXM5-80GB"), "1g.10gb 2g.20gb 3g.40gb 7g.80gb"),
    (("H100-PCIE-94GB", "H100-SXM5-94GB"), "1g.12gb 2g.24gb 3g.47gb 7g.94gb"),
    (("H20", "H100 on GH200"), "1g.12gb 2g.24gb 3g.48gb 7g.96gb"),
    (("H200 NVL", "H200-SXM5"), "1g.18gb 2g.35gb 3g.71gb 7g.141gb"),
    (("B200",), "1g.23gb 2g.45gb 3g.90gb 7g.180gb"),
    (("RTX PRO 6000 Blackwell Server Edition",), "1g.24gb 2g.48gb 4g.96gb"),
)

DEVICE_CONFIG: dict[str, object] = {
    "nvidia": {
        **_names("nvidia.com", "gpu", "gpumem", "gpucores"),
        "resourceMemoryPercentageName": "nvidia.com/gpumem-percentage",
        "resourcePriorityName": "nvidia.com/priority",
        "defaultGPUNum": 1,
        "memoryFactor": 1,
        "deviceSplitCount": 10,
        "deviceMemoryScaling": 1,
        "deviceCoreScaling": 1,
        "gpuCorePolicy": "default",
        "libCudaLogLevel": 1,
        "migProfileAllowlist": [{"models": models, "profiles": profiles.split()} for models, profiles in _MIG],
    },
    "cambricon": _names("cambricon.com", "vmlu", "mlu.smlu.vmemory", "mlu.smlu.vcore"),
    "hygon": {**_names("hygon.com", "dcunum", "dcumem", "dcucores"), "memoryFactor": 1},
    "metax": {
        "resourceCountName": "metax-tech.com/gpu",
        "resourceVCountName": "metax-tech.com/sgpu",
        "resourceVMemoryName": "metax-tech.com/vmemory",
        "resourceVCoreName": "metax-tech.com/vcore",
    },
    "enflame": {
        "resourceNameGCU": "enflame.com/gcu",
        "resourceNameDRSGCU": "enflame.com/drs-gcu",
        "resourceNameGCUMemory": "enflame.com/gcu-memory",
        "resourceNameGCUCore": "enflame.com/gcu-core",
    },
    "mthreads": _names("mthreads.com", "vgpu", "sgpu-memory", "sgpu-core"),
    "iluvatars": [_iluvatar(chip) for chip in ("MR-V100", "MR-V50", "BI-V150", "BI-V100")],
    "kunlun": {
        "resourceCountName": "kunlunxin.com/xpu",
        "resourceVCountName": "kunlunxin.com/vxpu",
        "resourceVMemoryName": "kunlunxin.com/vxpu-memory",
    },
    "awsneuron": _names("aws.amazon.com", "neuron", cores="neuroncore"),
    "amd": _names("amd.com", "gpu", "gpumem", "gpucores"),
    "vastai": _names("vastaitech.com", "va"),
    "biren": _names("birentech.com", "gpu"),
    "vnpus": {"configs": [_chip(row) for row in _CHIPS]},
}
