"""The kit lets correct backends pass, whatever they can do."""

from __future__ import annotations

from typing import ClassVar

from .memory_laws import MemoryLaws


class TestMemory(MemoryLaws):
    fields: ClassVar = {}


class TestMemoryThatIsPolled(MemoryLaws):
    fields: ClassVar = {"waits": False}


class TestMemoryWithoutGroups(MemoryLaws):
    fields: ClassVar = {"groups": False}


class TestMemoryWithoutSharedFiles(MemoryLaws):
    fields: ClassVar = {"shares": False, "waits": False}
