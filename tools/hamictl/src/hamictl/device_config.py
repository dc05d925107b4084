"""``hamictl config check``: all that is wrong with a device-config.yaml, and which vendors it names.

One rule: it says what our services say at their start, in the same words; what they only warn of is a problem here too.
"""

from pathlib import Path

from hami_kit.device_config import read_device_config
from hami_model import config
from hami_model.config_reading import written
from hami_model.errors import DomainError
from hami_model.vendors import build
from msgspec import Struct


class Problem(Struct, frozen=True, kw_only=True):
    """One problem; ``refused``: our services do not start with it, otherwise they warn."""

    line: int
    key: str
    says: str
    refused: bool


class Named(Struct, frozen=True, kw_only=True):
    """A vendor that the file names, and the resources by which pods ask for it."""

    word: str
    resources: tuple[str, ...]


class Checked(Struct, frozen=True, kw_only=True):
    """The whole answer; no vendors where the file cannot be used."""

    file: str
    problems: list[Problem]
    vendors: list[Named]


def check(path: Path) -> Checked:
    """Check one file; raise ``SettingsError`` for one that cannot be read at all."""
    file = read_device_config(path)
    reading = file.reading
    remarks = [(remark, True) for remark in reading.wrong] + [(remark, False) for remark in reading.unread]
    problems = [
        Problem(line=file.line(remark), key=written(remark.path), says=remark.sentence, refused=refused)
        for remark, refused in remarks
    ]
    named: list[Named] = []
    if not reading.wrong:
        try:
            catalog = build(config.usable(reading), ascend=True, iluvatar=True)
        except DomainError as e:
            problems.append(Problem(line=1, key="", says=str(e), refused=True))
        else:
            names = ((v.word, v.resources) for v in catalog.vendors)
            named = [
                Named(word=word, resources=tuple(filter(None, (r.count, r.memory, r.cores, r.percentage, r.priority))))
                for word, r in names
            ]
    return Checked(file=str(path), problems=sorted(problems, key=lambda problem: problem.line), vendors=named)
