"""`kv_connector_extra_config`, checked."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Settings:
    address: str | None = None
    tenant: str = "default"
    token: str = ""
    secret: str | None = None
    load: str = "async"
    save: str = "async"
    threads: int = 2
    timeout: float = 1.0
    weights_version: str = ""
    salt: str = ""

    @classmethod
    def of(cls, extra: dict) -> "Settings":
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(extra) - known):
            raise ValueError(f"kv_connector_extra_config: {unknown} unknown; there are {sorted(known)}")
        settings = cls(**extra)
        for name, choices in (("load", ("async", "sync")), ("save", ("async", "sync", "layerwise", "off"))):
            if (value := getattr(settings, name)) not in choices:
                raise ValueError(f"kv_connector_extra_config: {name} is {value!r}; it can be {choices}")
        return settings
