"""TensorRT's Python modules as they were recorded: what a version does not have is not there.

Behind the recorded names is a TensorRT that builds nothing: it notes what it is told.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from condic.runtime.tensorrt_library import TensorRt, adopt

RECORDED = Path(__file__).parents[1] / "data" / "tensorrt_apis.jsonl"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "recorded" in metafunc.fixturenames:
        records = [json.loads(line) for line in RECORDED.read_text().splitlines()]
        metafunc.parametrize("recorded", records, ids=[f"{x['module'][:-9]}-{x['version']}" for x in records])


@pytest.fixture
def played() -> SimpleNamespace:
    """What the played TensorRT is to answer, and what it was told."""
    return SimpleNamespace(
        problems=[], plan=b"a plan", error="", layers=[], no_gpu=False, information="", refits=True, network=None,
        config=None, profile={}, timing=b"", old_timing=None, fits=True, loaded=[], rejected=b"", refitted=[],
    )  # fmt: skip


@pytest.fixture
def play(played: SimpleNamespace) -> Callable[[dict[str, Any]], TensorRt]:
    """`play(recorded)`: that version, played."""

    def play(recorded: dict[str, Any]) -> TensorRt:
        enums = {name: IntEnum(name, members) for name, members in recorded["enums"].items()}
        classes = {
            name: _restricted(kind, set(recorded["classes"][name]))
            for name, kind in _classes(played, enums).items()
            if name in recorded["classes"]
        }
        api = SimpleNamespace(__version__=recorded["version"], **enums, **classes)
        played.api = api
        return adopt(api, "tensorrt-rtx" if "rtx" in recorded["module"] else "tensorrt")

    return play


def _restricted(kind: type[Any], names: set[str]) -> type[Any]:
    """A class that has only the public members with these names, and takes no others."""

    class Restricted(kind):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("_") and name not in names:
                raise AttributeError(f"{kind.__name__} has no {name}")
            return super().__getattribute__(name)

        def __setattr__(self, name: str, value: Any) -> None:
            if not name.startswith("_") and name not in names:
                raise AttributeError(f"{kind.__name__} has no {name}")
            super().__setattr__(name, value)

    for name in {x for x in dir(kind) if not x.startswith("_")} - names:
        setattr(Restricted, name, _Absent())
    if issubclass(kind, SimpleNamespace) or kind.__name__ in ("ILogger", "IProgressMonitor"):
        return kind  # they are derived from, or made with what they have
    return Restricted


class _Absent:
    """A member that is not there: hasattr says so, of the class too."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        raise AttributeError


def _classes(played: SimpleNamespace, enums: dict[str, Any]) -> dict[str, type[Any]]:
    """The classes; names and signatures are TensorRT's."""

    class ILogger:
        class Severity(IntEnum):
            INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        def say(self) -> None:
            if played.error:
                self.log(self.Severity.ERROR, played.error)  # type: ignore[attr-defined]

    class INetworkDefinition:
        def __init__(self, flags: int) -> None:
            self._flags = flags

        def add_attention(self) -> None:
            raise NotImplementedError

        @property
        def num_layers(self) -> int:
            return len(played.layers)

        def get_layer(self, k: int) -> Any:
            return played.layers[k]

    class IBuilderConfig:
        def __init__(self) -> None:
            self._flags = {enums["BuilderFlag"].TF32}
            self._previews: set[str] = set()

        def set_preview_feature(self, feature: Any, on: bool) -> None:
            self._previews = self._previews | {feature.name} if on else self._previews - {feature.name}

        def set_flag(self, flag: Any) -> None:
            self._flags.add(flag)

        def clear_flag(self, flag: Any) -> None:
            self._flags.discard(flag)

        def add_optimization_profile(self, profile: Any) -> None:
            played.profile = profile._shapes

        def create_timing_cache(self, data: bytes) -> Any:
            played.old_timing = data
            return played.api.ITimingCache()

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            assert not ignore_mismatch
            return bool(played.fits or not played.old_timing)

        def set_compute_capability(self, capability: Any, index: int) -> None:
            assert index == 0 < self.num_compute_capabilities
            self._capability = capability

        num_compute_capabilities = 0
        profiling_verbosity = hardware_compatibility_level = progress_monitor = builder_optimization_level = None

    class ITimingCache:
        def serialize(self) -> bytes:
            return played.timing

    class IOptimizationProfile:
        def __init__(self) -> None:
            self._shapes: dict[str, Any] = {}

        def set_shape(self, name: str, smallest: Any, usual: Any, largest: Any) -> None:
            self._shapes[name] = (smallest, usual, largest)

    class Builder:
        def __init__(self, logger: Any) -> None:
            self._logger = logger
            if played.no_gpu:
                logger.say()
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags: int) -> Any:
            played.network = played.api.INetworkDefinition(flags)
            return played.network

        def create_builder_config(self) -> Any:
            played.config = played.api.IBuilderConfig()
            return played.config

        def create_optimization_profile(self) -> Any:
            return played.api.IOptimizationProfile()

        def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
            monitor = config.progress_monitor if hasattr(config, "progress_monitor") else None
            if monitor:
                monitor.phase_start("Building engine", None, 4)
                for step in range(4):
                    monitor.step_complete("Building engine", step)
                monitor.phase_finish("Building engine")
            self._logger.say()
            return None if played.error else played.plan

    class OnnxParser:
        def __init__(self, network: Any, logger: Any) -> None:
            assert network is played.network

        def parse(self, graph: bytes) -> bool:
            return not played.problems

        @property
        def num_errors(self) -> int:
            return len(played.problems)

        def get_error(self, k: int) -> Any:
            return SimpleNamespace(desc=lambda: played.problems[k])

    class IProgressMonitor:
        pass

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: Any) -> None:
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            assert self.engine_host_code_allowed
            played.loaded.append(plan)
            if plan == played.rejected:
                self._logger.log(self._logger.Severity.ERROR, "Serialization assertion failed")
                return None
            return played.api.ICudaEngine()

    class ICudaEngine:
        def create_engine_inspector(self) -> Any:
            return played.api.EngineInspector()

        def create_serialization_config(self) -> Any:
            return played.api.ISerializationConfig()

        def serialize_with_config(self, config: Any) -> bytes:
            assert not config._flags
            return b"a whole plan"

    class ISerializationConfig:
        def __init__(self) -> None:
            self._flags = {enums["SerializationFlag"].EXCLUDE_WEIGHTS}

        def clear_flag(self, flag: Any) -> None:
            self._flags.remove(flag)

    class EngineInspector:
        def get_engine_information(self, format: Any) -> str:
            assert format == enums["LayerInformationFormat"].JSON
            return str(played.information)

    class Refitter:
        def __init__(self, engine: Any, logger: Any) -> None:
            pass

        def refit_cuda_engine(self) -> bool:
            return bool(played.refitted)

    class OnnxParserRefitter:
        def __init__(self, refitter: Any, logger: Any) -> None:
            self._logger = logger

        def refit_from_bytes(self, graph: bytes) -> bool:
            if played.refits:
                played.refitted.append(graph)
            self._logger.say()
            return bool(played.refits)

    return {name: kind for name, kind in locals().items() if isinstance(kind, type)}
