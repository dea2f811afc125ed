"""YAML files that a flag names, read so that nothing in them is lost: a key that stands twice is an error."""

from pathlib import Path
from typing import Any

import yaml

from accord.errors import BadInput


class _Unique(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, not the last one's."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: str, flag: str) -> Any:
    """What the file of a flag holds. BadInput names both where it cannot be read."""
    try:
        return _Unique(Path(path).read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError:
        raise BadInput(f"{flag} {path}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{flag} {path}: cannot be read ({' '.join(str(error).split())})") from None
