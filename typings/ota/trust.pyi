from collections.abc import Iterable
from typing import Any

class Trust:
    tls: Any
    def __init__(
        self,
        keys: Iterable[str] = (),
        board: str = "",
        tls: Any = None,
        hosts: Iterable[str] = (),
    ) -> None: ...
