"""A ledger's lines in memory."""

import threading
from dataclasses import dataclass, field


@dataclass
class Memory:
    """Lines in a list, under a lock."""

    lines: list[bytes] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> list[bytes]:
        return list(self.lines)

    def newest(self) -> int:
        return len(self.lines)

    def append(self, number: int, line: bytes) -> bool:
        with self.lock:
            if number != len(self.lines) + 1:
                return False
            self.lines.append(line)
            return True
