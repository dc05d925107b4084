"""HAMi's device-config.yaml as a file: read, and each remark about it with the line where its key stands."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from hami_model import config
from hami_model.config_reading import Path as Keys
from hami_model.config_reading import Reading, Remark
from msgspec import Struct

from hami_kit.errors import SettingsError

VARIABLE = "HAMI_DEVICE_CONFIG"


class DeviceConfigFile(Struct, frozen=True, kw_only=True):
    """What a file says, and on which line each key of it stands."""

    path: Path
    reading: Reading
    lines: Mapping[Keys, int]

    def line(self, remark: Remark) -> int:
        """Return the line that a remark is about: its key's, or that of the section in which one is missing."""
        path = remark.path
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_device_config(path: Path) -> DeviceConfigFile:
    """Read a file; raise ``SettingsError`` where it cannot be read or is no YAML."""
    try:
        text = path.read_text()
        document = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text)
        lines = dict(_lines(document, ())) if document else {}
    except (OSError, UnicodeDecodeError) as e:
        why = e.strerror if isinstance(e, OSError) else "it is no text"
        raise SettingsError(VARIABLE, f'"{path}" cannot be read ({why}); name a readable device-config.yaml') from e
    except (yaml.YAMLError, RecursionError, ValueError) as e:  # nested without end; a date that is none
        raise SettingsError(VARIABLE, f'"{path}" is no YAML: {" ".join(str(e).split())}') from e
    return DeviceConfigFile(path=path, reading=config.examine(tree), lines=lines)


def _lines(node: yaml.Node, path: Keys) -> Iterator[tuple[Keys, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, key.value)
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for at, value in enumerate(node.value):
            yield (*path, at), value.start_mark.line + 1
            yield from _lines(value, (*path, at))
