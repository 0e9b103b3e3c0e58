"""The schedule connector: every tick of a cron expression or an interval is an event, exactly one.

config.py (the words) -> ticks.py, cron.py (when it ticks) -> due.py (which ticks to hand over now) ->
source.py (waits, makes events, moves the position).
"""

from connectors.schedule.source import ScheduleSource

__all__ = ["ScheduleSource"]
