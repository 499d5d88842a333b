"""The kit lets correct backends pass, whatever they can do."""

from __future__ import annotations

from typing import ClassVar

import pytest

from .memory_laws import MemoryLaws

pytestmark = pytest.mark.proof  # of the kit, and the same on every Python


class TestMemory(MemoryLaws):
    fields: ClassVar = {}


class TestMemoryThatIsPolled(MemoryLaws):
    fields: ClassVar = {"waits": False}


class TestMemoryWithoutGroups(MemoryLaws):
    fields: ClassVar = {"groups": False}


class TestMemoryWithoutSharedFiles(MemoryLaws):
    fields: ClassVar = {"shares": False, "waits": False}
