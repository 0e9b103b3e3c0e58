"""From what was seen and what the ledger knows to what is handed over: pure; read this on identity.

| the ledger knows   | seen          | handed over                                    |
|--------------------|---------------|------------------------------------------------|
| nothing, or gone   | whole         | `file.arrived`, the next generation            |
| the same bytes     | whole         | nothing (a touch renews the mark)              |
| other bytes        | whole         | `file.changed`, the next generation            |
| it was broken      | whole         | as above, compared with the last event's bytes |
| anything but this  | broken        | one dead letter for each fingerprint           |
| it was there       | gone, refused | the mark; `file.removed` if asked              |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from connectors.file.fingerprint import BEYOND, FileMark, Signature, Standing, decode, encode
from connectors.file.look import Look, Seen
from connectors.file.pattern import PathPattern
from eventflow.event import JSON, Broken, Event, Record
from eventflow.source import Known, Mark

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one look comes to. Neither: the ledger is right as it is."""

    record: Record | None = None
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Recorder:
    """Makes the records of one source. `root` is a real path."""

    source: str
    root: bytes
    pattern: PathPattern
    removals: bool

    def decide(self, look: Look, known: Known | None) -> Outcome:
        before = decode(known.fingerprint) if known else None
        present = known is not None and known.present
        if look.seen in (Seen.gone, Seen.refused):
            return self._removed(look.path, before, known) if before and known and present else Outcome()
        assert look.signature is not None
        if look.seen is Seen.broken:
            return self._broken(look, look.signature, before, known)
        return self._whole(look, look.signature, before, known)

    def baseline(self, look: Look, known: Known | None) -> Outcome:
        """The mark alone: the file was there before the source was. Its first event will be a change."""
        if known or look.signature is None or look.seen in (Seen.gone, Seen.refused):
            return Outcome()
        mark = FileMark(Standing.ignored, 1, look.signature, look.sha256)
        return Outcome(mark=_mark(look.path, mark, known))

    # ------------------------------------------------------------------ one kind each

    def _whole(
        self, look: Look, signature: Signature, before: FileMark | None, known: Known | None
    ) -> Outcome:
        """`before` is what the path held last, even if it was gone since; `told` what it held until now."""
        told = before if before and before.generation and known and known.present else None
        if told and _same(told, signature, look.sha256):
            return self._renewed(look, signature, told, known)
        generation = before.generation + 1 if before else 1
        mark = FileMark(Standing.handed_over, generation, signature, look.sha256)
        kind = "file.changed" if told else "file.arrived"
        return Outcome(self._event(look.path, kind, mark), _mark(look.path, mark, known))

    def _renewed(self, look: Look, signature: Signature, told: FileMark, known: Known | None) -> Outcome:
        """The same bytes under another stat: the mark learns it, so that scans need not read the file."""
        if told.signature == signature and told.standing != Standing.broken:
            return Outcome()
        standing = Standing.handed_over if told.standing == Standing.broken else told.standing
        mark = FileMark(standing, told.generation, signature, look.sha256)
        return Outcome(mark=_mark(look.path, mark, known))

    def _broken(
        self, look: Look, signature: Signature, before: FileMark | None, known: Known | None
    ) -> Outcome:
        there = known is not None and known.present
        if before and there and before.standing == Standing.broken and before.signature[:3] == signature[:3]:
            return Outcome()
        # The bytes of the last event stay in the mark: readable again and unchanged is no event.
        mark = FileMark(
            Standing.broken,
            before.generation if before else 0,
            signature,
            before.sha256 if before and there else b"",
        )
        shown = look.path.decode(errors="backslashreplace")
        position = {"path": shown, "size": signature.size}
        letter = Broken(self.source, look.path, f"{shown}: {look.reason}", position)
        return Outcome(letter, _mark(look.path, mark, known))

    def _removed(self, path: bytes, before: FileMark, known: Known) -> Outcome:
        if not self.removals or not before.generation or not _is_text(path):
            return Outcome(mark=_mark(path, before, known, present=False))
        mark = FileMark(before.standing, before.generation + 1, before.signature, before.sha256)
        return Outcome(self._event(path, "file.removed", mark), _mark(path, mark, known, present=False))

    def _event(self, path: bytes, kind: str, mark: FileMark) -> Event:
        subject = path.decode()
        modified = _moment(mark.signature.mtime)
        data: dict[str, JSON] = {
            "path": os.fsdecode(os.path.join(self.root, path)),
            "name": subject.rpartition("/")[2],
            "size": mark.signature.size,
            "modified": modified.isoformat().replace("+00:00", "Z") if modified else None,
            "sha256": mark.sha256.hex() or None,
            "generation": mark.generation,
            **(self.pattern.match(subject) or {}),
        }
        return Event(
            source=self.source,
            id=f"{subject}#{mark.generation}",
            type=kind,
            data=data,
            raw=_encoder.encode(data),
            subject=subject,
            time=None if kind == "file.removed" else modified,
            datacontenttype="application/json",
        )


def unchanged(signature: Signature, known: Known) -> bool:
    """Whether the ledger already holds the file with this very stat, so that reading it can be saved.

    What could not be read is worth another try by every new process: it may have other rights.
    """
    mark = decode(known.fingerprint)
    return known.present and mark.signature == signature and mark.standing != Standing.broken


def _same(told: FileMark, signature: Signature, sha256: bytes) -> bool:
    """A broken mark's stat is not that of the last event: only its bytes can be compared."""
    if told.standing == Standing.broken:
        return bool(sha256) and told.sha256 == sha256
    return told.same_file(signature, sha256)


def _mark(path: bytes, mark: FileMark, known: Known | None, *, present: bool = True) -> Mark:
    """`record` is filled in when the batch is put together."""
    return Mark(path, encode(mark), known.generation + 1 if known else 1, present=present)


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def _moment(nanoseconds: int) -> datetime | None:
    """To the microsecond; None where the fingerprint only knows that it is far away."""
    return None if abs(nanoseconds) >= BEYOND else _EPOCH + timedelta(microseconds=nanoseconds // 1000)
