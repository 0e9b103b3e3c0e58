"""The webhook connector: `POST /hooks/NAME`, answered 202 only once the event is durable.

A request travels source.py (the HTTP side: refuse or read) -> signature.py (is it authentic? with the keys
of keys.py) -> rate.py (too many?) -> record.py (event or broken record; content.py decodes the body,
cloudevents.py what is one) -> waiting.py (collected into batches, waits for the commit) -> source.py (the
answer).
"""

from connectors.webhook.source import WebhookSource

__all__ = ["WebhookSource"]
