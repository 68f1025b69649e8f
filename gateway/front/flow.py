"""When a client connection is read; uvicorn's own flow control, with one more reason not to."""

from __future__ import annotations

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """Uvicorn's cycle pauses reading for a body that nobody takes, and resumes whenever it is asked for more;
    the connection holds it for what was sent ahead, and only it lets go of that."""

    _held = False

    def hold(self) -> None:
        """Read no more, whoever asks."""
        self._held = True
        self.pause_reading()

    def let_go(self) -> None:
        """Read on."""
        self._held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Read on, unless it is held."""
        if not self._held:
            super().resume_reading()
